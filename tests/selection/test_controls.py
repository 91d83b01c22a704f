"""Controls of the threshold rule: random pairs of like lengths, and its own pairs with swapped sides."""

import math
from collections import Counter

import numpy as np
import pytest
from candidates import as_set, candidates
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.pairs import pair_table
from tasks.selection.counts import PairCounts
from tasks.selection.pairs import PairIndices
from tasks.selection.random_control import length_bin
from tasks.selection.strategies import PairsConfig, select

LENGTHS = st.integers(1, 30)


@st.composite
def tables(draw):
    """Return candidates with ties, missing rewards, equal texts, truncated ones and lengths of all kinds."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 7)))
    rewards = draw(hnp.arrays(np.float64, shape, elements=st.integers(-3, 3) | st.just(math.nan)))
    texts = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 9)))
    cut = draw(st.sets(st.tuples(st.integers(0, shape[0] - 1), st.integers(0, shape[1] - 1)), max_size=3))
    return candidates(rewards, texts, cut)._replace(lengths=draw(hnp.arrays(np.int64, shape, elements=LENGTHS)))


CONFIGS = st.fixed_dictionaries(
    {
        "eta": st.sampled_from([0.5, 0.8, 0.9]),
        "max_pairs_per_prompt": st.sampled_from([None, 1, 4]),
        "cap": st.sampled_from(["random", "widest"]),
        "truncated": st.sampled_from(["keep", "drop", "never_chosen"]),
        "seed": st.integers(0, 9),
    }
)


def per_prompt_and_bin(table, pairs):
    return Counter(zip(pairs.row.tolist(), length_bin(table, pairs).tolist(), strict=True))


def unordered(pairs):
    return {(row, *sorted(sides)) for row, *sides in as_set(pairs)}


# Random pairs


def test_length_bins_by_hand():
    lengths = [[10, 9, 8, 5, 4, 20, 21]]
    table = candidates([[7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])._replace(lengths=np.array(lengths))
    ten = PairIndices(np.zeros(6, int), np.zeros(6, int), np.arange(1, 7))
    # 10 against 9: a tenth; 8: a fifth; 5: half; 4: more than twice as long; 20: half as long; 21: less than half.
    assert length_bin(table, ten).tolist() == [2, 3, 3, 4, 1, 0]
    mirrored = PairIndices(ten.row, ten.rejected, ten.chosen)
    assert length_bin(table, mirrored).tolist() == [2, 1, 1, 0, 3, 4]
    assert length_bin(table._replace(lengths=np.zeros((1, 7), int)), ten).tolist() == [2] * 6


def test_random_pairs_by_hand():
    # The threshold keeps 9 over 0, whose chosen side is far longer. Far longer, too, is 9 over 8; 8 over 0 is alike.
    table = candidates([[9.0, 8.0, 0.0], [1.0, 0.0, 0.5]])._replace(lengths=np.array([[30, 5, 5], [1, 1, 1]]))
    wide = PairsConfig(eta=0.5, tau=1.0, max_pairs_per_prompt=1, cap="widest")
    assert as_set(select(table, wide)) == {(0, 0, 2), (1, 0, 1)}
    drawn = Counter()
    for seed in range(400):
        found = as_set(select(table, wide.model_copy(update={"strategy": "random", "seed": seed})))
        drawn.update(found)
    assert drawn.keys() == {(0, 0, 1), (0, 0, 2), (1, 0, 1), (1, 0, 2), (1, 2, 1)}
    assert abs(drawn[0, 0, 1] - 200) < 50  # 5 standard deviations
    assert all(abs(drawn[1, j, i] - 400 / 3) < 48 for j, i in ((0, 1), (0, 2), (2, 1)))


@given(table=tables(), settings=CONFIGS)
def test_random_pairs_are_as_many_of_each_prompt_and_of_each_bin_of_lengths(table, settings):
    kept = select(table, PairsConfig(**settings))
    found = select(table, PairsConfig(**settings, strategy="random"))
    assert per_prompt_and_bin(table, found) == per_prompt_and_bin(table, kept)
    assert (table.rewards[found.row, found.chosen] > table.rewards[found.row, found.rejected]).all()
    every = PairsConfig(eta=0.5, truncated=settings["truncated"])
    assert as_set(found) <= as_set(select(table, every))  # no equal texts, none truncated
    assert len(as_set(found)) == found.row.size


def test_random_pairs_have_smaller_gaps_than_those_of_the_threshold():
    table = candidates(np.random.default_rng(0).normal(size=(300, 8)))
    gaps = {}
    for strategy in ("threshold", "random"):
        row, chosen, rejected = select(table, PairsConfig(strategy=strategy))
        gaps[strategy] = table.rewards[row, chosen] - table.rewards[row, rejected]
    assert gaps["threshold"].min() > 1.7
    assert (gaps["random"] < 1.7).mean() > 0.4


# Swapped sides


def test_swapped_pairs_have_a_negative_gap_and_a_probability_below_one_half():
    table = candidates([[2.0, 0.0]])
    found = {seed: select(table, PairsConfig(strategy="shuffled", seed=seed)) for seed in range(20)}
    assert {tuple(as_set(pairs)) for pairs in found.values()} == {((0, 0, 1),), ((0, 1, 0),)}
    swapped = next(pairs for pairs in found.values() if pairs.chosen[0] == 1)
    (row,) = pair_table(table, swapped, tau=1.0).to_pylist()
    assert (row["chosen_reward"], row["rejected_reward"], row["reward_gap"]) == (0.0, 2.0, -2.0)
    assert row["preference_prob"] == pytest.approx(1 / (1 + math.exp(2)), rel=1e-6)
    counts = PairCounts(PairsConfig(strategy="shuffled"))
    counts.add(table._replace(lengths=np.array([[9, 3]])), swapped)
    assert (counts.stats()["acceptance_rate"], counts.stats()["prompts_without_pair"]) == (1.0, 0)
    assert counts.stats()["profile"]["longer_chosen_share"] == 0.0  # the chosen side is the shorter one
    assert counts.stats()["widest_gap_quantiles"]["max"] == 2.0  # of the rewards, whatever is chosen


@given(table=tables(), settings=CONFIGS)
def test_swapped_pairs_are_those_of_the_threshold(table, settings):
    found = select(table, PairsConfig(**settings, strategy="shuffled"))
    kept = select(table, PairsConfig(**settings))
    assert unordered(found) == unordered(kept)
    assert found.row.size == kept.row.size
    in_order = sorted(zip(*map(np.ndarray.tolist, found), strict=True))
    assert list(zip(*map(np.ndarray.tolist, found), strict=True)) == in_order


def test_about_half_are_swapped_whatever_the_gap_and_the_lengths():
    random = np.random.default_rng(1)
    table = candidates(random.normal(size=(1000, 8)) * 2)._replace(lengths=random.integers(1, 50, (1000, 8)))
    row, chosen, rejected = select(table, PairsConfig(strategy="shuffled"))
    gaps = table.rewards[row, chosen] - table.rewards[row, rejected]
    longer = table.lengths[row, chosen] > table.lengths[row, rejected]
    assert row.size > 10_000
    for some in (gaps != 0, np.abs(gaps) > 4, longer):  # 5 standard deviations of a fair coin
        assert abs((gaps[some] < 0).mean() - 0.5) < 2.5 / math.sqrt(some.sum())
    assert abs(gaps.mean()) < 5 * gaps.std() / math.sqrt(row.size)


def test_the_coin_depends_on_the_seed():
    table = candidates(np.random.default_rng(2).normal(size=(50, 8)) * 2)
    one, other = (as_set(select(table, PairsConfig(strategy="shuffled", seed=seed))) for seed in (0, 1))
    assert 0.3 < len(one & other) / len(one) < 0.7
