"""Which pairs a cap keeps: the widest by hand, and random subsets that depend on seed, prompt and pair alone."""

import itertools
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.selection.caps import random_subset, widest
from tasks.selection.draws import prompt_seeds
from tasks.selection.pairs import Candidates
from tasks.selection.strategies import PairsConfig, select
from tasks.selection.threshold import select_pairs


def matrices() -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.integers(-3, 3))


def candidates(rewards: np.ndarray, ids: list[str] | None = None) -> Candidates:
    n, k = rewards.shape
    return Candidates(
        pa.array(ids or [f"prompt-{i}" for i in range(n)]),
        rewards=rewards,
        truncated=np.zeros((n, k), bool),
        lengths=np.ones((n, k), int),
        texts=np.arange(n * k).reshape(n, k),
        distinct_texts=pa.array([f"text {number}" for number in range(n * k)]),
        may_be_chosen=np.ones((n, k), bool),
    )


def kept_pairs(rewards: np.ndarray, ids: list[str] | None = None, **settings) -> dict[str, set[tuple[int, int]]]:
    """Return the pairs of each prompt that the threshold rule at gap 0 and a cap leave."""
    drawn = candidates(rewards, ids)
    found = select(drawn, PairsConfig(eta=0.5, **settings))
    kept: dict[str, set[tuple[int, int]]] = {}
    for row, chosen, rejected in zip(*map(np.ndarray.tolist, found), strict=True):
        kept.setdefault(drawn.prompt_ids[row].as_py(), set()).add((chosen, rejected))
    return kept


def test_widest_by_hand_and_ties_go_to_the_lower_indices():
    rewards = np.array([[0.0, 3.0, 1.0, 3.0], [0.0, 1.0, 0.0, 0.0]])
    assert kept_pairs(rewards, max_pairs_per_prompt=2, cap="widest") == {
        "prompt-0": {(1, 0), (3, 0)},
        "prompt-1": {(1, 0), (1, 2)},
    }
    assert kept_pairs(rewards, max_pairs_per_prompt=1, cap="widest") == {"prompt-0": {(1, 0)}, "prompt-1": {(1, 0)}}


@given(matrices(), st.integers(1, 40))
def test_widest_keeps_the_widest_gaps_of_each_row(rewards, limit):
    row, chosen, rejected = select_pairs(rewards, 1.0, 0.5)
    gap = rewards[row, chosen] - rewards[row, rejected]
    kept = widest(row, chosen, rejected, gap, limit)
    for number in range(rewards.shape[0]):
        every, mine = gap[row == number], gap[kept[row[kept] == number]]
        assert sorted(mine) == sorted(every)[len(every) - min(limit, len(every)) :]


@pytest.mark.parametrize("cap", ["random", "widest"])
@given(matrices(), st.integers(1, 20))
def test_a_cap_keeps_so_many_of_each_prompt_and_nothing_else(cap, rewards, limit):
    every, kept = kept_pairs(rewards), kept_pairs(rewards, max_pairs_per_prompt=limit, cap=cap)
    assert every.keys() == kept.keys()
    for prompt_id, pairs in every.items():
        assert kept[prompt_id] <= pairs
        assert len(kept[prompt_id]) == min(limit, len(pairs))


@given(matrices(), st.integers(1, 10), st.integers(0, 2**40))
def test_a_lower_random_cap_keeps_a_part_of_what_a_higher_one_keeps(rewards, limit, seed):
    more = kept_pairs(rewards, max_pairs_per_prompt=limit + 1, seed=seed)
    for prompt_id, pairs in kept_pairs(rewards, max_pairs_per_prompt=limit, seed=seed).items():
        assert pairs <= more[prompt_id]


def test_what_is_drawn_for_a_prompt_depends_on_no_other_prompt():
    rewards = np.random.default_rng(0).normal(size=(6, 8))
    ids = [f"prompt-{i}" for i in range(6)]
    together = kept_pairs(rewards, max_pairs_per_prompt=5)
    backwards = kept_pairs(rewards[::-1], ids[::-1], max_pairs_per_prompt=5)
    alone = [kept_pairs(rewards[i : i + 1], [ids[i]], max_pairs_per_prompt=5) for i in range(6)]
    assert together == backwards == dict(itertools.chain.from_iterable(part.items() for part in alone))
    assert together != kept_pairs(rewards, max_pairs_per_prompt=5, seed=1)


def test_every_pair_of_a_prompt_is_kept_as_often():
    rewards = np.arange(4.0)[None]  # 6 pairs, of gaps 1, 1, 1, 2, 2 and 3
    row, chosen, rejected = select_pairs(rewards, 1.0, 0.5)
    counts: Counter[tuple[int, ...]] = Counter()
    for seed in range(6000):
        kept = random_subset(row, chosen, rejected, prompt_seeds(seed, ["a prompt"]), 2)
        counts[tuple(kept.tolist())] += 1
    # 15 subsets of 2, each 400 times on average; chi-square with 14 degrees of freedom is above 36.1 once in 1,000.
    assert len(counts) == 15
    assert sum((count - 400) ** 2 / 400 for count in counts.values()) < 36.1


def narrowest(rewards: np.ndarray, **settings) -> float:
    """Return the least reward gap of the pairs that a cap of 20 leaves of one prompt's."""
    pairs = kept_pairs(rewards, max_pairs_per_prompt=20, **settings)["prompt-0"]
    return min(rewards[0, chosen] - rewards[0, rejected] for chosen, rejected in pairs)


def test_the_default_keeps_hard_pairs_too():
    rewards = np.linspace(0, 1.5, 16)[None]  # 120 pairs; the 20 widest have gaps from 1.0 on
    assert narrowest(rewards, cap="widest") == pytest.approx(1.0)
    assert all(narrowest(rewards, seed=seed) < 0.5 for seed in range(20))
