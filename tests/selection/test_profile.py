"""What a scored table looks like, whatever is selected from it."""

import math

import numpy as np
import pytest
from candidates import candidates
from hypothesis import given
from hypothesis import strategies as st

from tasks.selection.histogram import BINS, GrowingHistogram
from tasks.selection.pairs import no_pairs
from tasks.selection.profile import ETAS, TAUS, Correlation, Profile
from tasks.selection.strategies import PairsConfig, admitted
from tasks.selection.threshold import select_pairs


def profile(given_candidates, selected=None, tau=1.0, eta=0.85):
    made = Profile(tau, eta)
    made.add(given_candidates, no_pairs() if selected is None else selected)
    return made.stats()


def test_a_table_by_hand():
    # p0: 0, 4, 1 and p1: 2, 2, and none; gaps 4, 1, 3 and a tie. Of p0's three texts two are alike.
    table = candidates([[0.0, 4.0, 1.0], [2.0, 2.0, math.nan]], texts=[[5, 6, 5], [7, 8, -1]])
    table = table._replace(lengths=np.array([[1, 3, 2], [4, 4, 0]]))
    selected = select_pairs(table.rewards, tau=1.0, eta=0.85)  # gaps 4 and 3
    stats = profile(table, selected)
    assert stats["unique_share"] == pytest.approx(4 / 5)
    assert stats["possible_pairs"] == 4
    assert stats["tie_share"] == pytest.approx(1 / 4)
    assert stats["longer_chosen_share"] == 1.0  # 3 over 1, 3 over 2
    assert stats["k_curve"] == [
        {"k": 2, "pairs": 1, "best_reward": 3.0},  # (4 + 2) / 2
        {"k": 3, "pairs": 2, "best_reward": 3.0},
    ]
    within = np.corrcoef([-5 / 3, 7 / 3, -2 / 3, 0, 0], [-1, 1, 0, 0, 0])[0, 1]
    assert stats["length_correlation_within_prompt"] == pytest.approx(within)
    assert stats["length_correlation"] == pytest.approx(np.corrcoef([0, 4, 1, 2, 2], [1, 3, 2, 4, 4])[0, 1])
    assert stats["gaps"] == {"width": 0.0625, "counts": [0] * 16 + [1] + [0] * 31 + [1] + [0] * 14 + [1]}
    assert sum(stats["spreads"]["counts"]) == 2


def test_longer_chosen_counts_a_pair_of_one_length_as_half():
    table = candidates([[0.0, 4.0, 8.0]])._replace(lengths=np.array([[2, 2, 1]]))
    selected = select_pairs(table.rewards, tau=1.0, eta=0.85)  # as long, shorter, shorter
    assert profile(table, selected)["longer_chosen_share"] == pytest.approx(0.5 / 3)


@given(seed=st.integers(0, 50), tau=st.sampled_from([0.3, 1.0]), rule=st.sampled_from(["keep", "drop", "never_chosen"]))
def test_the_grid_counts_what_the_threshold_selects(seed, tau, rule):
    rewards = np.round(np.random.default_rng(seed).normal(size=(7, 5)) * 4) / 4  # with ties
    table = admitted(candidates(rewards, cut=[(0, 1), (3, 3)]), PairsConfig(truncated=rule))
    grid = profile(table, tau=tau)["grid"]
    assert {(point["tau"], point["eta"]) for point in grid} == {(t, e) for t in {*TAUS, tau} for e in ETAS}
    for point in grid:
        found = select_pairs(table.rewards, point["tau"], point["eta"])
        assert point["pairs"] == table.may_be_chosen[found.row, found.chosen].sum(), point


def test_a_gap_at_the_threshold_is_not_above_it():
    gap = math.log(0.85 / (1 - 0.85))
    (point,) = (p for p in profile(candidates([[0.0, gap]]))["grid"] if (p["tau"], p["eta"]) == (1.0, 0.85))
    assert point["pairs"] == 0


def test_no_reward_at_all():
    stats = profile(candidates([[math.nan, math.nan]]))
    assert (stats["tie_share"], stats["length_correlation"], stats["longer_chosen_share"]) == (None, None, None)
    assert stats["k_curve"] == [{"k": 2, "pairs": 0, "best_reward": None}]
    assert stats["gaps"]["counts"] == []


@given(values=st.lists(st.floats(0, 1e6), min_size=1, max_size=50), cut=st.integers(0, 50))
def test_a_histogram_does_not_depend_on_the_parts(values, cut):
    whole, parts = GrowingHistogram(), GrowingHistogram()
    whole.add(np.array(values))
    parts.add(np.array(values[:cut]))
    parts.add(np.array(values[cut:]))
    assert parts.stats() == whole.stats()
    assert whole.counts.sum() == len(values)
    assert len(whole.stats()["counts"]) <= BINS


@given(seed=st.integers(0, 50), cut=st.integers(0, 20), shift=st.sampled_from([0.0, 1e6]))
def test_a_correlation_does_not_depend_on_the_parts_nor_on_a_constant(seed, cut, shift):
    one, other = np.random.default_rng(seed).normal(size=(2, 20))
    parts = Correlation()
    parts.add(one[:cut] + shift, other[:cut])
    parts.add(one[cut:] + shift, other[cut:])
    assert parts.value() == pytest.approx(np.corrcoef(one, other)[0, 1], abs=1e-6)
