"""The worth of the best of n of one prompt's completions: against every subset, counted one by one."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.rewards.best_of import best_of, best_of_kl


def counted(by, measured, n):
    """Return the mean over every subset of n, each of its best completions as likely as another."""
    worth = []
    for subset in combinations(range(len(by)), n):
        top = max(by[i] for i in subset)
        worth.append(np.mean([measured[i] for i in subset if by[i] == top]))
    return np.mean(worth)


def test_by_hand():
    """Of 1, 3 and 2, worth 10, 20 and 60: the best of the pairs are worth 20, 60 and 20."""
    assert best_of(np.array([1.0, 3.0, 2.0]), np.array([10.0, 20.0, 60.0])) == pytest.approx([30, 100 / 3, 20])


def test_of_equal_rewards_each_may_be_the_best():
    found = best_of(np.array([0.0, 1.0, 1.0]), np.array([9.0, 2.0, 4.0]))
    assert found == pytest.approx([5, (2 + 4 + 3) / 3, 3])
    assert best_of(np.zeros(3), np.array([1.0, 2.0, 6.0])) == pytest.approx([3, 3, 3]), "a constant is random"


def test_without_a_reward_a_completion_is_the_best_of_such_alone():
    assert best_of(np.array([np.nan, 0.0]), np.array([9.0, 1.0])).tolist() == [5, 1]
    assert best_of(np.array([np.nan, np.nan]), np.array([9.0, 1.0])).tolist() == [5, 5]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-9, 9)), min_size=1, max_size=7))
def test_it_is_the_mean_over_every_subset(rows):
    by, measured = (np.array(values, np.float64) for values in zip(*rows, strict=True))
    found = best_of(by, measured)
    assert found == pytest.approx([counted(by, measured, n) for n in range(1, len(rows) + 1)])
    assert np.all(best_of(measured, measured) >= found - 1e-9), "nothing beats the gold reward"


def test_kl():
    assert best_of_kl(1) == 0
    assert best_of_kl(4) == pytest.approx(math.log(4) - 3 / 4)
