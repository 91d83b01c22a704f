"""Totals from a part: by hand, and how often the intervals hold what comes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.planning.estimates import Estimate, exactly, total


def test_a_total_by_hand():
    """Of 10 prompts, 4 have 1, 2, 3 and 6: mean 3, s = 2.1602, t(3, .95) = 2.3534.

    Half width: 2.3534 x 10 x 2.1602 x sqrt(6 / 10 / 4) = 19.689.
    """
    found = total(np.array([1.0, 2, 3, 6]), of=10, most=7)
    assert found.predicted == 30
    assert found.high == pytest.approx(30 + 19.689, abs=1e-3)
    assert found.low == 12  # 30 - 19.7, but 12 are known already


def test_the_known_part_bounds_the_total_on_both_sides():
    found = total(np.array([0.0, 9.0]), of=4, most=10)
    assert found.low == 9
    assert found.high == 9 + 2 * 10


def test_all_prompts_leave_no_doubt():
    assert total(np.array([1.0, 5.0, 2.0]), of=3, most=9) == exactly(8.0)


def test_what_no_prompt_has_may_be_elsewhere():
    """1 - .05 ** (1 / 10) = .2589 of the other 90 prompts may have up to 3."""
    found = total(np.zeros(10), of=100, most=3)
    assert found == (0, 0, pytest.approx(90 * 0.2589 * 3, rel=1e-3))
    found = total(np.full(10, 3.0), of=100, most=3)
    assert found == (300, pytest.approx(30 + 90 * 3 * (1 - 0.2589), rel=1e-3), 300)


def test_sums_and_products_carry_their_bounds():
    one = Estimate(10, 8, 15)
    assert one.times(2) == (20, 16, 30)
    assert one.times(2, 1, 3) == (20, 8, 45)
    assert one.plus(Estimate(1, 0, 2)) == (11, 8, 17)


@given(st.lists(st.integers(0, 120), min_size=2, max_size=30), st.integers(0, 500))
def test_an_interval_holds_its_prediction_and_what_is_known(values, more):
    found = total(np.array(values, float), len(values) + more, most=120)
    assert sum(values) <= found.low <= found.predicted + 1e-9
    assert found.predicted <= found.high + 1e-9
    assert found.high <= sum(values) + more * 120 + 1e-9


@pytest.mark.parametrize("size", [10, 40])
@pytest.mark.parametrize("kind", ["pairs", "a few prompts have many", "nearly all have one"])
def test_nine_of_ten_intervals_hold_what_comes(kind, size):
    """Over 1,000 pilots each of a world of 400 prompts; a skewed one is held a little less often, as is known of t."""
    random = np.random.default_rng(0)
    world = {
        "pairs": random.binomial(120, random.beta(2, 3, 400)),
        "a few prompts have many": np.where(random.random(400) < 0.3, random.integers(1, 40, 400), 0),
        "nearly all have one": (random.random(400) < 0.97).astype(int),
    }[kind].astype(float)
    pilots = (random.choice(world, size, replace=False) for _ in range(1000))
    found = [total(pilot, 400, world.max()) for pilot in pilots]
    held = np.mean([each.low <= world.sum() <= each.high for each in found])
    assert held >= (0.8 if kind.startswith("a few") and size == 10 else 0.86)
    if kind == "pairs":
        assert held <= 0.94, "and not by being wide"
