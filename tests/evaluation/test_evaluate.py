"""Evaluation: win rates, distinct-2 and the comparison by hand, then their laws."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.config.evaluation import EvaluationConfig
from tasks.config.settings import SamplingConfig, ScoringConfig
from tasks.evaluate import evaluation_settings
from tasks.evaluation.comparison import compare, policy_stats, win_rate
from tasks.evaluation.divergence import per_sequence, per_token
from tasks.evaluation.drawn import Drawn, samples_table
from tasks.evaluation.intervals import bootstrap_interval
from tasks.evaluation.tables import evaluation_rows
from tasks.rewards.functions import GoldReward

WHOLE = st.integers(-3, 3).map(float)


@st.composite
def rewards(draw):
    n, k, m = draw(st.integers(1, 8)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return draw(arrays(float, (n, k), elements=WHOLE)), draw(arrays(float, (n, m), elements=WHOLE))


def column(*values):
    return np.array(values, float)[:, None]


# Win rate


def test_win_rate_by_hand():
    found = win_rate(column(1, 2, 3, 4), column(0, 2, 5, 1), 500, 0)
    assert found["win_rate"] == (1 + 0.5 + 0 + 1) / 4
    assert found["ties"] == 0.25


def test_win_rate_compares_all_completions_of_a_prompt():
    ours, theirs = np.array([[3.0, 0.0]]), np.array([[1.0, 3.0, -1.0]])
    # 3 beats 1 and -1 and ties with 3; 0 beats -1: 3 wins and 1 tie of 6.
    found = win_rate(ours, theirs, 100, 0)
    assert found["win_rate"] == pytest.approx(3.5 / 6)
    assert found["ties"] == pytest.approx(1 / 6)


def test_prompts_are_not_mixed():
    assert win_rate(column(0, 10), column(1, 11), 100, 0)["win_rate"] == 0
    assert win_rate(column(0, 10), column(-1, 9), 100, 0)["win_rate"] == 1


def test_certain_wins_have_no_interval():
    found = win_rate(column(1, 1, 1), column(0, 0, 0), 200, 0)
    assert (found["low"], found["win_rate"], found["high"]) == (1, 1, 1)


def test_the_interval_is_that_of_a_mean():
    # 400 prompts, half of them won: 0.5 +- 1.96 * 0.5 / sqrt(400).
    wins = np.tile([0.0, 1.0], 200)[:, None]
    found = win_rate(wins, np.full((400, 1), 0.5), 4000, 3)
    assert found["low"] == pytest.approx(0.451, abs=0.006)
    assert found["high"] == pytest.approx(0.549, abs=0.006)


def test_the_interval_is_over_prompts_not_completions():
    # Ten completions a prompt that all agree are no ten observations.
    ours = np.tile([0.0, 1.0], 20)[:, None]
    once = win_rate(ours, np.full((40, 1), 0.5), 2000, 0)
    tenfold = win_rate(np.repeat(ours, 10, axis=1), np.full((40, 1), 0.5), 2000, 0)
    assert tenfold == once


def test_the_seed_decides_the_interval():
    random = np.random.default_rng(0)
    ours, theirs = random.normal(size=(31, 3)), random.normal(size=(31, 2))
    assert win_rate(ours, theirs, 200, 1) == win_rate(ours, theirs, 200, 1)
    assert win_rate(ours, theirs, 200, 1) != win_rate(ours, theirs, 200, 2)


@pytest.mark.parametrize("statistic", [per_sequence, per_token])
def test_an_interval_is_that_of_one_resample_after_another(statistic, monkeypatch):
    monkeypatch.setattr("tasks.evaluation.intervals.CHUNK", 100)  # 7 resamples of 13 prompts at once, and 4 at last
    rows = np.random.default_rng(0).gamma(2.0, size=(13, 2))
    random = np.random.default_rng(5)
    one_by_one = [statistic(rows[random.integers(0, 13, 13)], axis=0) for _ in range(200)]
    expected = np.quantile(one_by_one, [0.025, 0.975])
    assert bootstrap_interval(rows, statistic, 200, 5) == pytest.approx(tuple(expected))


@given(rewards())
@settings(max_examples=40, deadline=None)
def test_win_rate_is_symmetric(both):
    ours, theirs = both
    forth, back = win_rate(ours, theirs, 200, 0), win_rate(theirs, ours, 200, 0)
    assert forth["win_rate"] == pytest.approx(1 - back["win_rate"])
    assert forth["ties"] == pytest.approx(back["ties"])
    assert (forth["low"], forth["high"]) == pytest.approx((1 - back["high"], 1 - back["low"]))


@given(rewards())
@settings(max_examples=40, deadline=None)
def test_the_interval_holds_the_win_rate(both):
    found = win_rate(*both, 200, 0)
    assert -1e-9 <= found["low"] <= found["win_rate"] + 1e-9
    assert found["win_rate"] - 1e-9 <= found["high"] <= 1 + 1e-9


@given(rewards(), st.sampled_from([-4.0, 0.5, 100.0]))
@settings(max_examples=20, deadline=None)
def test_only_the_order_of_rewards_matters(both, shift):
    ours, theirs = both
    assert win_rate(2 * ours + shift, 2 * theirs + shift, 100, 0) == win_rate(ours, theirs, 100, 0)


@given(arrays(float, (5, 2), elements=WHOLE))
@settings(max_examples=20, deadline=None)
def test_a_policy_against_itself_wins_half(ours):
    assert win_rate(ours, ours, 100, 0)["win_rate"] == pytest.approx(0.5)


# Both policies


def drawn(texts, rewards, gold=None, cut=()):
    rows = {
        "prompt_id": [f"p{number // 2}" for number in range(len(texts))],
        "completion_id": [number % 2 for number in range(len(texts))],
        "completion": texts,
        "num_tokens": [len(text.split()) for text in texts],
        "finish_reason": ["length" if number in cut else "stop" for number in range(len(texts))],
    }
    given = {"reward_model": rewards} | ({} if gold is None else {"gold": gold})
    return Drawn(pa.table(rows), {name: np.array(values, float) for name, values in given.items()}, {})


def compared(aligned, sft):
    """Return the figures of the aligned policy, compared with those of the SFT policy."""
    return compare({"sft": sft, "aligned": aligned}, "sft", TWO)["aligned"]


TEXTS = ["a b", "c", "a b c d", "e f g"]
TWO = EvaluationConfig(k=2, bootstrap_samples=200)


def test_a_policy_s_figures_by_hand():
    found = policy_stats(drawn(TEXTS, [0, 2, 2, 4], gold=[1, 1, 1, -1], cut=[3]))
    assert found.pop("rewards") == {
        "reward_model": pytest.approx({"mean": 2, "std": 2**0.5}),
        "gold": pytest.approx({"mean": 0.5, "std": 0.75**0.5}),
    }
    assert found.pop("finished") == {
        "reward_model": pytest.approx({"mean": 4 / 3, "std": 8**0.5 / 3}),
        "gold": {"mean": 1, "std": 0},
    }
    assert found == pytest.approx(
        {
            "mean_tokens": 2.5,
            "distinct_2": 5 / 6,  # ab twice, bc, cd, ef, fg
            "repetition": 0.0,
            "completions": 4,
            "truncated": 1,
            "truncation_rate": 0.25,
        }
    )


def test_compare_by_hand():
    aligned, sft = drawn(TEXTS, [1, 3, 0, 0]), drawn(TEXTS, [0, 2, 0, 5])
    found = compare({"sft": sft, "aligned": aligned}, "sft", TWO)
    # p0: 1 > 0, 1 < 2, 3 > 0, 3 > 2: 3 / 4. p1: 0 = 0 and 0 < 5, twice: 1 / 4.
    win = found["aligned"]["win_rates"]["reward_model"]
    assert (win["win_rate"], win["ties"], win["prompts"]) == (0.5, 0.25, 2)
    assert found["aligned"]["win_rates"].keys() == {"reward_model"}
    assert policy_stats(aligned).items() <= found["aligned"].items()
    assert found["sft"] == policy_stats(sft), "the reference is compared with none"


def test_the_gold_reward_is_compared_beside_the_reward_model():
    found = compared(drawn(TEXTS, [9, 9, 9, 9], [0, 0, 0, 0]), drawn(TEXTS, [0, 0, 0, 0], [1, 1, 1, 1]))
    assert found["win_rates"]["reward_model"]["win_rate"] == 1
    assert found["win_rates"]["gold"]["win_rate"] == 0


def test_every_policy_is_compared_with_the_reference_alone():
    drawn_by = {name: drawn(TEXTS, [height] * 4) for name, height in (("low", 0), ("sft", 1), ("high", 2))}
    found = compare(drawn_by, "sft", TWO)
    rates = {name: own["win_rates"]["reward_model"]["win_rate"] for name, own in found.items() if "win_rates" in own}
    assert rates == {"low": 0, "high": 1}


def test_the_table_has_a_row_for_each_policy_completion_and_reward():
    policies = {"sft": drawn(TEXTS, [0, 1, 2, np.nan], gold=[4] * 4), "aligned": drawn(TEXTS, [5] * 4, gold=[6] * 4)}
    rows = samples_table(policies).to_pylist()
    assert len(rows) == 2 * 2 * 4
    own = [row for row in rows if (row["policy"], row["prompt_id"]) == ("sft", "p1")]
    assert [(row["completion_id"], row["completion"], row["reward_name"], row["reward"]) for row in own] == [
        (0, "a b c d", "reward_model", 2),
        (1, "e f g", "reward_model", None),
        (0, "a b c d", "gold", 4),
        (1, "e f g", "gold", 4),
    ]


# Truncated completions


def test_without_truncated_completions_by_hand():
    aligned, sft = drawn(TEXTS, [1, 3, 9, 9], gold=[4, 4, 4, 4], cut=[0, 2, 3]), drawn(TEXTS, [0, 5, 0, 1], [1] * 4)
    found = compared(aligned, sft)
    assert found["win_rates"]["reward_model"]["win_rate"] == (2 + 4) / 8  # p0: 1 > 0, 3 > 0; p1: all of its 4
    # p0: 3 > 0 and 3 < 5; p1 has nothing left.
    expected = {"win_rate": 0.5, "low": 0.5, "high": 0.5, "ties": 0.0, "prompts": 1}
    assert found["finished_win_rates"]["reward_model"] == expected
    assert found["finished"] == {"reward_model": {"mean": 3, "std": 0}, "gold": {"mean": 4, "std": 0}}
    assert policy_stats(sft)["finished"]["reward_model"]["mean"] == 1.5
    assert found["truncated"] == 3


def test_without_any_left_there_is_none():
    aligned, sft = drawn(TEXTS, [1, 3, 9, 9], gold=[4, 4, 4, 4], cut=range(4)), drawn(TEXTS, [0, 5, 0, 1], [1] * 4)
    found = compare({"sft": sft, "aligned": aligned}, "sft", TWO)
    assert found["aligned"]["finished_win_rates"] == {"reward_model": None, "gold": None}
    assert found["aligned"]["finished"]["reward_model"] == {"mean": None, "std": None}
    json.dumps(found, allow_nan=False)
    found["aligned"]["divergence"] = KL
    for policy in found.values():
        policy["reference_nll"] = math.log(4)
    rows = evaluation_rows({"prompts": 2, "reference": "sft", "policies": found})
    assert [row[2] for row in rows if row[0].startswith("  without truncated")] == ["none"] * 4
    assert ("perplexity under sft", "4.00", "4.00") in rows
    assert "nan" not in str(rows)


KL = {f"kl_{name}{bound}": 1.0 for name in ("sequence", "token") for bound in ("", "_low", "_high")} | {
    "completions": 4,
    "truncated": 4,
}


def test_where_none_is_truncated_both_are_the_same():
    found = compared(drawn(TEXTS, [1, 3, 0, 0], [1, 2, 3, 4]), drawn(TEXTS, [0, 2, 0, 5], [2] * 4))
    assert found["finished_win_rates"] == found["win_rates"]
    assert found["finished"] == found["rewards"]


@given(rewards(), st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_left_out_does_not_count(both, data):
    ours, theirs = (rewards.copy() for rewards in both)
    for side in (ours, theirs):
        side[data.draw(arrays(bool, side.shape))] = np.nan
    found, wins = win_rate(ours, theirs, 100, 0), []
    for mine, other in zip(ours, theirs, strict=True):
        pairs = [(a, b) for a in mine for b in other if not np.isnan(a + b)]
        if pairs:
            wins.append(np.mean([(a > b) + (a == b) / 2 for a, b in pairs]))
    assert (found is None) == (not wins)
    if found is not None:
        assert found["win_rate"] == pytest.approx(np.mean(wins))
        assert found["prompts"] == len(wins)


def test_the_aligned_policy_is_sampled_as_the_policy_was():
    sampling = SamplingConfig(k=16, temperature=0.7, top_p=0.9, top_k=50, max_new_tokens=32, stop=("\n",), seed=5)
    how = evaluation_settings(sampling, ScoringConfig(), EvaluationConfig(k=3, seed=9), GoldReward())
    expected = {**sampling.model_dump(), "k": 3, "seed": 9}
    assert how.decoding.model_dump() == expected
