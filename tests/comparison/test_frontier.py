"""Curves of reward against KL."""

import numpy as np
import pytest

from tasks.comparison.frontier import band, common_kl, curve


def test_a_reward_between_two_models_is_on_the_line_between_them_over_the_root_of_kl():
    found = curve([(16.0, 4.0), (4.0, 3.0)], reference=1.0)
    assert found.at(0) == 1
    assert found.at(1) == 2  # sqrt: half way from 0 to 2
    assert found.at(4) == 3
    assert found.at(9) == 3.5  # half way from 2 to 4
    assert found.at(16) == 4
    assert found.at(16.1) is None, "nothing is guessed beyond the last model"


def test_a_reward_that_rises_with_the_root_of_kl_is_the_same_wherever_models_are_kept():
    near, far = (curve([(kl, 1 + kl**0.5) for kl in kept], 1.0) for kept in ((1.0, 2.0), (9.0, 16.0)))
    assert near.at(1.5) == pytest.approx(far.at(1.5)) == pytest.approx(1 + 1.5**0.5)


def test_an_estimate_below_zero_is_at_the_reference():
    assert curve([(-0.01, 1.0)], reference=1.0).kl.tolist() == [0, 0]


def test_a_band_ends_where_the_first_seed_does():
    found = band([curve([(4.0, 3.0)], 1.0), curve([(2.0, 2.0)], 1.0)])
    assert found.at[[0, -1]].tolist() == [0, 2]
    assert found.mean[-1] == pytest.approx(
        (1 + 2 * 0.5**0.5 + 2) / 2
    )  # at 2 nats: the first is at sqrt(2 / 4) of its way
    assert found.low[0] == found.high[0] == 1
    wider = band([curve([(2.0, 3.0)], 1.0), curve([(2.0, 2.0)], 1.0)])
    assert wider.mean[-1] == 2.5
    assert wider.high[-1] - 2.5 == pytest.approx(12.706 * 0.5, rel=1e-3)  # t(1, .975), s / sqrt(2) = .5


def test_one_seed_has_no_band():
    found = band([curve([(2.0, 3.0)], 1.0)])
    assert np.array_equal(found.low, found.high)


def test_the_common_kl_is_what_every_seed_of_every_arm_reaches():
    assert common_kl({"a": [curve([(4.0, 3.0)], 1.0)], "b": [curve([(2.0, 1.0)], 1.0), curve([(5.0, 1.0)], 1.0)]}) == 2
