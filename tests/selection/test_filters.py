"""Prompts that give no pair: by their best and worst completion, and by their pass rate."""

import numpy as np
import pytest
from candidates import NAN, as_set, candidates
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.selection.counts import PairCounts
from tasks.selection.filters import PassRate, Rip, left_out
from tasks.selection.strategies import SETTINGS, PairsConfig, select

TABLE = candidates([[0.0, 4.0, 8.0], [3.0, 5.0, 9.0], [NAN, 6.0, 2.0], [NAN, NAN, NAN]])._replace(
    lengths=np.array([[5, 6, 7], [2, 9, 9], [9, 3, 4], [0, 0, 0]])
)


def rows_out(rip=None, pass_rate=None, table=TABLE):
    return {reason: np.flatnonzero(out).tolist() for reason, out in left_out(table, rip or Rip(), pass_rate).items()}


def test_the_three_measures_by_hand():
    # Worst: 0.0 of 5 tokens, 3.0 of 2, 2.0 of 4. Gaps: 8, 6, 4. The last prompt has no reward.
    assert rows_out(Rip(least_rejected_reward=2.0)) == {"rejected_reward": [0]}
    assert rows_out(Rip(least_rejected_reward=3.0)) == {"rejected_reward": [0, 2]}
    assert rows_out(Rip(least_rejected_length=5)) == {"rejected_length": [1, 2]}
    assert rows_out(Rip(most_gap=6.0)) == {"reward_gap": [0]}
    assert rows_out() == {}


def test_a_prompt_counts_under_the_first_reason():
    rip = Rip(least_rejected_reward=2.5, least_rejected_length=6, most_gap=5.0)
    assert rows_out(rip, PassRate(at=100.0, least=0.5)) == {
        "rejected_reward": [0, 2],
        "rejected_length": [1],
        "reward_gap": [],
        "pass_rate": [],
    }


def test_pass_rates_by_hand():
    # Above 4.0, strictly: 1 of 3, 2 of 3, 1 of 2.
    assert rows_out(pass_rate=PassRate(at=4.0, least=0.5)) == {"pass_rate": [0]}
    assert rows_out(pass_rate=PassRate(at=4.0, most=0.5)) == {"pass_rate": [1]}
    assert rows_out(pass_rate=PassRate(at=4.0, least=0.4, most=0.6)) == {"pass_rate": [0, 1]}
    assert rows_out(pass_rate=PassRate(at=9.0, least=0.01)) == {"pass_rate": [0, 1, 2]}


def test_truncated_completions_count_as_the_rule_says():
    table = candidates([[0.0, 5.0, 9.0]], cut=[(0, 0), (0, 2)])
    gap = {"eta": 0.5, "rip": {"most_gap": 4.0}}
    assert select(table, PairsConfig(**gap, truncated="keep")).row.size == 0  # 9 over 0
    assert select(table, PairsConfig(**gap, truncated="never_chosen")).row.size == 0  # 5 over 0
    wider = {"eta": 0.5, "rip": {"most_gap": 5.0}}
    assert as_set(select(table, PairsConfig(**wider, truncated="never_chosen"))) == {(0, 1, 0)}


@pytest.mark.parametrize("strategy", sorted(SETTINGS))
def test_every_strategy_leaves_the_same_prompts_out(strategy):
    rewards = np.random.default_rng(0).normal(size=(60, 8)) * 2
    table = candidates(rewards)
    rules = {"rip": {"least_rejected_reward": -3.5, "most_gap": 6.5}, "pass_rate": {"at": 0.0, "most": 0.7}}
    config = PairsConfig(strategy=strategy, **rules)
    out = np.any(list(left_out(table, config.rip, config.pass_rate).values()), axis=0)
    assert 10 < out.sum() < 50
    every = as_set(select(table, PairsConfig(strategy=strategy)))
    assert as_set(select(table, config)) == {pair for pair in every if not out[pair[0]]}


@given(
    rewards=hnp.arrays(np.float64, (4, 5), elements=st.integers(-3, 3) | st.just(NAN)),
    bounds=st.tuples(st.integers(-3, 3), st.integers(1, 6), st.sampled_from([0.2, 0.5])),
    shift=st.integers(-100, 100),
)
def test_rewards_and_bounds_that_move_together_change_nothing(rewards, bounds, shift):
    def out(by):
        rip = Rip(least_rejected_reward=bounds[0] + by, most_gap=bounds[1])
        found = left_out(candidates(rewards + by), rip, PassRate(at=bounds[0] + by, least=bounds[2]))
        return {reason: rows.tolist() for reason, rows in found.items()}

    assert out(shift) == out(0)


def test_counts_name_the_reasons_only_where_a_filter_is_set():
    config = PairsConfig(rip={"least_rejected_reward": 1.0}, pass_rate={"at": 7.0, "least": 0.1})
    counts = PairCounts(config)
    for _ in range(2):
        counts.add(TABLE, select(TABLE, config))
    assert counts.stats()["left_out_prompts"] == {"rejected_reward": 2, "pass_rate": 2}
    assert counts.stats()["prompts_without_pair"] == 6
    assert not {"left_out_prompts", "pairs_before_max_pairs"} & PairCounts(PairsConfig()).stats().keys()


def test_where_all_are_left_out_the_message_says_so():
    counts = PairCounts(PairsConfig(rip={"most_gap": 0.5}))
    counts.add(TABLE, select(TABLE, counts.config))
    message = counts.explain_none()
    for piece in ("3 prompts were left out", "pairs.rip and pairs.pass_rate leave", "or loosen these"):
        assert piece in message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"at": 0.5}, "least = 0 and most = 1 leave no prompt out"),
        ({"at": 0.5, "least": 0.8, "most": 0.2}, r"least = 0.8 must be at most most = 0.2"),
        ({"at": 0.5, "least": -0.1}, "greater than or equal to 0"),
        ({"at": 0.5, "most": 1.1}, "less than or equal to 1"),
        ({"least": 0.1}, "at\n  Field required"),
    ],
)
def test_pass_rates_out_of_bounds(values, message):
    with pytest.raises(ValueError, match=message):
        PairsConfig(pass_rate=values)
