"""The K best completions over all prompts, whatever parts they come in."""

import numpy as np
import pytest
from candidates import NAN, as_set, candidates
from hypothesis import given
from hypothesis import strategies as st

from tasks.selection.best_overall import by_reward
from tasks.selection.max_pairs import SmallestDraws
from tasks.selection.pairs import PairIndices
from tasks.selection.strategies import PairsConfig, draws, select

TABLE = [[1.0, 9.0, 3.0, 8.0], [7.0, 2.0, NAN, 2.5], [0.0, -1.0, -2.0, 0.5]]


def best(rewards, count, parts=1, texts=None, cut=(), **settings):
    """Return (row, chosen, rejected) of the best ones of a table that comes in parts of consecutive prompts."""
    config = PairsConfig(strategy="best_overall", max_pairs=count, **settings)
    whole = candidates(rewards, texts, cut)
    places = np.array_split(np.arange(len(rewards)), parts)
    cuts = [whole._replace(prompt_ids=whole.prompt_ids.take(own.tolist()), **_rows(whole, own)) for own in places]
    smallest = SmallestDraws(count)
    for part in cuts:
        smallest.add(draws(part, config))
    found = [select(part, config, smallest.bound()) for part in cuts]
    return {(int(own[r]), j, i) for own, pairs in zip(places, found, strict=True) for r, j, i in as_set(pairs)}


def _rows(whole, own):
    return {name: getattr(whole, name)[own] for name in ("rewards", "truncated", "lengths", "texts", "may_be_chosen")}


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_best_over_all_by_hand(parts):
    # In order: 9, 8 and 3 of the first prompt lie around 7 of the second; each is over the worst of its own prompt.
    assert best(TABLE, 1, parts) == {(0, 1, 0)}
    assert best(TABLE, 2, parts) == {(0, 1, 0), (0, 3, 0)}
    assert best(TABLE, 4, parts) == {(0, 1, 0), (0, 3, 0), (1, 0, 1), (0, 2, 0)}
    assert best(TABLE, 100, parts) == {(0, 1, 0), (0, 3, 0), (1, 0, 1), (0, 2, 0), (1, 3, 1)} | {
        (2, 3, 2),
        (2, 0, 2),
        (2, 1, 2),
    }


def test_of_equal_rewards_exactly_k_stay_and_the_seed_says_which():
    tied = [[5.0, 0.0], [5.0, 0.0], [5.0, 0.0], [6.0, 0.0]]
    assert all(len(best(tied, 3, parts, seed=seed)) == 3 for parts in (1, 2, 4) for seed in range(30))
    assert {found for seed in range(30) for found in best(tied, 3, seed=seed)} == {(row, 0, 1) for row in range(4)}
    assert all((3, 0, 1) in best(tied, 1, seed=seed) for seed in range(30)), "a higher reward is no tie"
    assert best(tied, 2, 1) == best(tied, 2, 4), "whatever the parts"


def test_equal_texts_of_a_prompt_count_once_and_those_of_two_prompts_twice():
    texts = [[4, 4, 5], [4, 6, 7]]
    assert best([[3.0, 3.0, 0.0], [3.0, 1.0, 0.0]], 2, texts=texts) == {(0, 0, 2), (1, 0, 2)}


def test_a_prompt_whose_completions_are_alike_has_none():
    assert best([[9.0, 9.0], [1.0, 0.0]], 5) == {(1, 0, 1)}


def test_what_is_truncated_is_not_chosen():
    assert best([[9.0, 5.0, 0.0]], 1, cut=[(0, 0)]) == {(0, 1, 2)}
    assert best([[9.0, 5.0, 0.0]], 1, cut=[(0, 0)], truncated="never_chosen") == {(0, 1, 2)}


def test_a_prompt_has_at_most_as_many_as_its_cap():
    assert best(TABLE, 2, max_pairs_per_prompt=1, cap="widest") == {(0, 1, 0), (1, 0, 1)}


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=30))
def test_the_numbers_order_rewards(rewards):
    table = candidates([rewards])
    pairs = PairIndices(*(np.array(own) for own in ([0] * len(rewards), range(len(rewards)), [0] * len(rewards))))
    numbers = by_reward(pairs, table, np.zeros(len(rewards), np.uint64)).tolist()
    for one, own in zip(numbers, rewards, strict=True):
        for other, theirs in zip(numbers, rewards, strict=True):
            assert (one < other) == (own > theirs)


def test_the_two_zeros_are_equal():
    pairs = PairIndices(np.array([0, 0]), np.array([0, 1]), np.array([0, 0]))
    assert len({*by_reward(pairs, candidates([[-0.0, 0.0]]), np.zeros(2, np.uint64)).tolist()}) == 1
