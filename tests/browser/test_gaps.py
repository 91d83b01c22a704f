"""Counts at any tau and eta are those of the selection itself."""

import math

import numpy as np
import pytest
from candidates import NAN, candidates
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.browser.gaps import Gaps, Rule
from tasks.config.errors import ConfigurationError
from tasks.selection.filters import PassRate, Rip
from tasks.selection.strategies import PairsConfig, select
from tasks.selection.threshold import select_pairs

REWARDS = st.floats(-5, 5, width=32) | st.sampled_from([0.0, 1.0, NAN, math.inf, -math.inf])


KEEP = Rule("keep")


def counted(given, rule=KEEP):
    gaps = Gaps(rule)
    gaps.add(given)
    gaps.finish()
    return gaps


def test_the_threshold_is_strict():
    gap = math.log(0.85 / 0.15)  # sigma(gap) == 0.85 exactly
    gaps = counted(candidates([[0.0, gap], [0.0, np.nextafter(gap, 9)]]))
    assert gaps.count(1.0, 0.85).pairs == 1
    assert gaps.count(1.0, 0.5).pairs == 2


def test_prompts_and_possible_pairs_are_counted():
    kept = counted(candidates([[0.0, 1.0, 3.0], [0.0, NAN, 0.0]])).count(1.0, 0.8)  # gap above 1.386
    assert (kept.pairs, kept.prompts, kept.of_prompts, kept.possible) == (2, 1, 2, 4)
    assert kept.acceptance_rate == 0.5


def test_nothing_gives_nothing():
    kept = Gaps(Rule())
    kept.finish()
    assert kept.count(1.0, 0.85) == (0, 0, 0, 0)
    assert kept.count(1.0, 0.85).acceptance_rate == 0.0


@given(
    rewards=arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=REWARDS),
    tau=st.floats(0.01, 10),
    eta=st.floats(0.5, 0.999),
)
def test_counts_are_those_of_select_pairs(rewards, tau, eta):
    found = select_pairs(rewards, tau, eta)
    kept = counted(candidates(rewards)).count(tau, eta)
    assert (kept.pairs, kept.prompts) == (found.row.size, np.unique(found.row).size)


@given(
    rewards=arrays(np.float32, (5, 4), elements=st.integers(-3, 3)),
    texts=arrays(np.int64, (5, 4), elements=st.integers(0, 2)),
    cut=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 3))),
    rule=st.sampled_from(["keep", "drop", "never_chosen"]),
    most=st.sampled_from([None, 1, 3]),
    rip=st.sampled_from([Rip(), Rip(least_rejected_reward=-1.0, most_gap=3.5)]),
    passing=st.sampled_from([None, PassRate(at=0.0, least=0.4)]),
    eta=st.sampled_from([0.5, 0.7, 0.9]),
)
def test_counts_are_those_of_the_whole_selection(rewards, texts, cut, rule, most, rip, passing, eta):
    """With its rule for truncated completions, its cap and filters, and no pair of equal texts."""
    own = candidates(rewards, texts=texts, cut=cut)
    config = PairsConfig(eta=eta, truncated=rule, max_pairs_per_prompt=most, rip=rip, pass_rate=passing)
    kept = counted(own, Rule(rule, most, rip, passing)).count(config.tau, eta)
    found = select(own, config)
    assert (kept.pairs, kept.prompts) == (found.row.size, np.unique(found.row).size)


@pytest.mark.parametrize(("tau", "eta"), [(0.0, 0.85), (math.nan, 0.85), (1.0, 0.3), (1.0, 1.0), (1.0, math.nan)])
def test_bounds_are_those_of_the_settings(tau, eta):
    with pytest.raises(ConfigurationError, match="must be"):
        counted(candidates([[0.0, 1.0]])).count(tau, eta)
