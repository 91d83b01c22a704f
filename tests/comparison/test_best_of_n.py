"""Best of n, by hand and by drawing."""

import numpy as np
import pytest

from tasks.comparison.best_of_n import best_of_n


def test_three_completions_by_hand():
    """Chosen by 1, 3, 2 and measured 10, 20, 60: of the pairs, the best ones are 60, 20 and 20."""
    found = best_of_n(np.array([[1.0, 3.0, 2.0]]), np.array([[10.0, 20.0, 60.0]]))
    assert found.reward == pytest.approx([30, (60 + 20 + 20) / 3, 20])
    assert found.kl == pytest.approx([0, np.log(2) - 1 / 2, np.log(3) - 2 / 3])


def test_it_is_the_mean_over_draws():
    random = np.random.default_rng(0)
    chosen_by, measured = random.normal(size=(200, 8)), random.normal(size=(200, 8))
    measured += chosen_by
    found = best_of_n(chosen_by, measured)
    drawn = []
    for _ in range(400):
        some = random.permuted(np.tile(np.arange(8), (200, 1)), axis=1)[:, :3]
        best = np.take_along_axis(some, np.take_along_axis(chosen_by, some, 1).argmax(1)[:, None], 1)
        drawn.append(np.take_along_axis(measured, best, 1).mean())
    assert found.reward[2] == pytest.approx(np.mean(drawn), abs=0.02)
    assert np.all(np.diff(found.reward) > 0)


def test_a_completion_without_a_reward_is_never_the_best():
    found = best_of_n(np.array([[np.nan, 0.0]]), np.array([[9.0, 1.0]]))
    assert found.reward.tolist() == [5, 1]
