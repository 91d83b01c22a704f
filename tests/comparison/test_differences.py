"""Differences over seeds and prompts: by hand, and how often a null comparison's interval holds zero."""

import numpy as np
import pytest

from tasks.comparison.differences import holm, of_prompts_and_seeds, of_seeds, win_differences


def test_seeds_by_hand():
    """1, 2 and 6: mean 3, s / sqrt(3) = 1.5275, t(2, .975) = 4.3027; t = 1.964, p = .1885."""
    found = of_seeds([1.0, 2.0, 6.0])
    assert found.mean == 3
    assert found.high == pytest.approx(3 + 4.3027 * 1.5275, abs=1e-3)
    assert found.p == pytest.approx(0.1885, abs=1e-3)


def test_one_seed_says_nothing_of_others():
    found = of_seeds([5.0])
    assert (found.low, found.high, found.p) == (-np.inf, np.inf, 1.0)


def test_prompts_and_seeds_by_hand():
    """Two seeds, two prompts, additive: seed means 1 and 3, prompt means 1.5 and 2.5, nothing is left over.

    Variance: 2 / 2 + .5 / 2 = 1.25; freedom: 1.25^2 / (1^2 / 1 + .25^2 / 1) = 1.4706.
    """
    found = of_prompts_and_seeds(np.array([[0.5, 1.5], [2.5, 3.5]]))
    assert found.mean == 2
    half = found.high - found.mean
    assert half / np.sqrt(1.25) == pytest.approx(6.5, abs=0.6)  # t(1.47, .975)


def test_wins_by_hand():
    """Of 2 x 2 pairs: 2 above, 1 tie, 1 below: .625; a missing reward leaves its pairs out."""
    ours, theirs = np.array([[[1.0, 3.0]]]), np.array([[[1.0, 2.0]]])
    assert win_differences(ours, theirs)[0, 0] == pytest.approx((1 + 1 + 0.5) / 4 - 0.5)
    assert win_differences(np.array([[[np.nan, 3.0]]]), theirs)[0, 0] == 0.5
    assert win_differences(np.array([[[np.nan]]]), theirs[..., :1])[0, 0] == 0


def test_holm_by_hand():
    """.01 x 3, .03 x 2, .04 x 1 but not below the one before."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


@pytest.mark.parametrize("noise", [(0.0, 0.2, 0.3), (0.1, 0.2, 0.3), (0.3, 0.05, 0.1)])
def test_a_null_comparison_holds_zero_in_19_of_20(noise):
    """2,000 comparisons of an arm with itself, by noise of seeds, prompts and both; 5 seeds, 40 prompts."""
    random = np.random.default_rng(0)
    seed, prompt, both = noise
    held = []
    for _ in range(2000):
        values = (
            seed * random.normal(size=(5, 1))
            + prompt * random.normal(size=(1, 40))
            + both * random.normal(size=(5, 40))
        )
        found = of_prompts_and_seeds(values)
        held.append(found.low <= 0 <= found.high)
    assert 0.93 <= np.mean(held) <= 0.985
