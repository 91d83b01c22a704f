"""An arm against itself, by hand and by simulation."""

import numpy as np
import pytest

from tasks.comparison.halves import told_apart, usual_range
from tasks.config.errors import ConfigurationError


def test_by_hand():
    """In 8 of 24 orders the first two are equal: both differences are then 1 or -1; in the others they cancel."""
    count = told_apart(np.array([0.0, 0.0, 1.0, 1.0]), 3000, np.random.default_rng(0))
    assert count / 3000 == pytest.approx(8 / 24, abs=0.03)


def test_seeds_of_one_normal_distribution_are_told_apart_in_one_of_twenty_splits():
    draws = np.random.default_rng(1)
    shares = [told_apart(draws.normal(size=10), 20, draws) / 20 for _ in range(300)]
    assert np.mean(shares) == pytest.approx(0.05, abs=0.01)


def test_the_usual_range_is_around_one_of_twenty_and_narrower_for_more_seeds():
    draws = np.random.default_rng(2)
    (low, high), (least, most) = (usual_range(seeds, 100, 60, draws) for seeds in (6, 24))
    assert low < 0.05 < high
    assert least < 0.05 < most
    assert most - least < high - low


def test_an_odd_seed_is_left_out_in_turn():
    values = np.array([0.0, 0.0, 0.0, 0.0, 9.0])
    assert told_apart(values, 50, np.random.default_rng(0)) == 0  # without it, no difference; with it, one of two


@pytest.mark.parametrize("seeds", [0, 1, 3])
def test_too_few_seeds_are_refused(seeds):
    with pytest.raises(ConfigurationError, match=f"{seeds} seeds cannot be split: 4 is the least"):
        told_apart(np.zeros(seeds), 10, np.random.default_rng(0))
