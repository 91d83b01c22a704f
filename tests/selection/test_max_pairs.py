"""At most so many pairs in all, whatever the parts and their order; a smaller set within a larger one."""

import itertools
import math

import numpy as np
import pytest
from candidates import as_set, candidates
from hypothesis import given
from hypothesis import strategies as st

from tasks.selection.max_pairs import SmallestDraws
from tasks.selection.strategies import SETTINGS, PairsConfig, draws, select


def bound_of(parts, config):
    smallest = SmallestDraws(config.max_pairs)
    for part in parts:
        smallest.add(draws(part, config))
    return smallest.bound()


def limited(table, **settings):
    """Return the pairs that a limit leaves of a single part."""
    config = PairsConfig(**settings)
    return select(table, config, bound_of([table], config))


@given(numbers=st.lists(st.integers(0, 50), max_size=60), cuts=st.sets(st.integers(0, 60)), count=st.integers(1, 70))
def test_the_bound_is_the_next_smallest_number(numbers, cuts, count):
    found = SmallestDraws(count)
    for start, end in itertools.pairwise([0, *sorted(cuts), 61]):
        found.add(np.array(numbers[start:end], np.uint64))
        assert found._draws.size <= count + 1
    expected = sorted(numbers)[count] if len(numbers) > count else None
    assert found.bound() == expected
    assert found.seen == len(numbers)
    below = [number for number in numbers if expected is None or number < expected]
    assert len(below) <= count
    if len(set(numbers)) == len(numbers):
        assert len(below) == min(count, len(numbers))


def test_the_largest_number_is_kept_apart_from_the_one_before():
    found = SmallestDraws(1)
    found.add(np.array([2**64 - 1, 2**64 - 2], np.uint64))
    assert found.bound() == np.uint64(2**64 - 1)  # no float has room for it


TABLE = candidates(np.random.default_rng(5).normal(size=(40, 8)) * 2)


@pytest.mark.parametrize("strategy", sorted(SETTINGS))
def test_smaller_sets_are_parts_of_larger_ones(strategy):
    every = as_set(select(TABLE, PairsConfig(strategy=strategy)))
    sets = [as_set(limited(TABLE, strategy=strategy, max_pairs=count)) for count in (1, 7, 20, 30, len(every))]
    assert [len(found) for found in sets] == [1, 7, 20, 30, len(every)]
    assert sets[-1] == every
    if strategy == "random":
        every = as_set(select(TABLE, PairsConfig(eta=0.5)))
    assert all(smaller <= larger for smaller, larger in itertools.pairwise([*sets, every]))


def test_a_limit_that_is_not_reached_changes_nothing():
    every = as_set(select(TABLE, PairsConfig()))
    assert as_set(limited(TABLE, max_pairs=10**9)) == every


@pytest.mark.parametrize("strategy", ["random", "shuffled"])
def test_a_control_has_as_many_of_each_prompt_as_the_threshold_under_the_same_limit(strategy):
    limits = {"max_pairs": 50, "max_pairs_per_prompt": 5, "seed": 3}
    kept, control = limited(TABLE, **limits), limited(TABLE, strategy=strategy, **limits)
    assert control.row.tolist() == kept.row.tolist()
    if strategy == "shuffled":
        assert {(r, *sorted(s)) for r, *s in as_set(control)} == {(r, *sorted(s)) for r, *s in as_set(kept)}


def test_every_pair_stays_as_often_also_under_a_cap():
    # 66 pairs of one prompt, capped to 2, and one pair of each of two more: 4 pairs, 2 of which stay.
    rewards = np.full((3, 12), math.nan)
    rewards[0], rewards[1:, :2] = np.arange(12) * 9.0, [0.0, 9.0]
    table, counts = candidates(rewards), np.zeros(3)
    for seed in range(2000):
        found = limited(table, max_pairs=2, max_pairs_per_prompt=2, seed=seed)
        counts += np.bincount(found.row, minlength=3)
    # Prompt 0 has two of the four: 2000 pairs on average; the others 1000 each, with a standard deviation of 22.
    assert abs(counts[1:] - 1000).max() < 5 * 22.4
    assert counts.sum() == 4000


def test_another_seed_keeps_others():
    one, other = (as_set(limited(TABLE, max_pairs=100, seed=seed)) for seed in (0, 1))
    assert one != other
