"""Monitors: what they measure by hand, and when they speak."""

import inspect
import math

import pytest

from flows.rs_dpo import rs_dpo
from flows.settings_yaml import read_yaml
from tasks.monitors import measures
from tasks.monitors.judging import FAIL, OK, UNMEASURED, WARN, MonitorsConfig, judge
from tasks.monitors.table import MONITORS

SFT = {"mean_tokens": 20.0, "distinct_2": 0.4, "repetition": 0.01, "reference_nll": 1.0, "truncation_rate": 0.1}
WIN = {"win_rate": 0.9, "low": 0.85, "high": 0.95}
ALIGNED = {
    "mean_tokens": 10.0,
    "distinct_2": 0.3,
    "repetition": 0.05,
    "reference_nll": 1.0 + math.log(2),
    "truncation_rate": 0.0,
    "win_rates": {"reward_model": WIN, "gold": {"win_rate": 0.6, "low": 0.45, "high": 0.75}, "none": None},
    "finished_win_rates": {"reward_model": WIN | {"win_rate": 0.7}, "gold": None, "none": None},
    "divergence": {"kl_sequence": 30.0, "kl_token": 0.1},
}
EVALUATION = {"reference": "sft", "policies": {"sft": SFT, "aligned": ALIGNED}}


def verdicts(stage, stats, **thresholds):
    found = judge(stage, stats, MonitorsConfig(**thresholds))
    return {(each.name, each.about): (each.level, each.value) for each in found}


def test_an_evaluation_by_hand():
    found = verdicts("evaluate_policy", EVALUATION)
    assert found == {
        ("kl_sequence", "aligned"): (WARN, 30.0),
        ("kl_token", "aligned"): (OK, 0.1),
        ("foreign_text", "aligned"): (WARN, pytest.approx(2.0)),
        ("length", "aligned"): (WARN, 0.5),
        ("repetition", "aligned"): (OK, pytest.approx(0.04)),
        ("diversity", "aligned"): (OK, pytest.approx(0.75)),
        ("truncation", "aligned"): (OK, -0.1),
        ("win_rate", "aligned, reward_model"): (OK, 0.85),
        ("win_rate", "aligned, gold"): (WARN, 0.45),
        ("truncated_win_rate", "aligned, reward_model"): (WARN, pytest.approx(0.2)),
        ("over_optimisation", "aligned, gold"): (WARN, pytest.approx(0.3)),
        ("held_out_fall", ""): (UNMEASURED, None),
    }


def test_over_optimisation_is_told_by_the_reward_that_pairs_come_from():
    rates = {name: {"win_rate": rate, "low": rate, "high": rate} for name, rate in (("combined", 0.9), ("brief", 0.8))}
    policies = {"sft": SFT, "aligned": ALIGNED | {"win_rates": ALIGNED["win_rates"] | rates}}
    stats = {"reference": "sft", "policies": policies, "optimised": ["combined", "brief"]}
    found = {
        about: value for (name, about), (_, value) in verdicts("evaluate_policy", stats).items() if name[:6] == "over_o"
    }
    assert found == {"aligned, gold": pytest.approx(0.3), "aligned, reward_model": pytest.approx(0.0)}


def test_a_policy_that_does_not_differ_from_the_reference_is_not_doubted_for_it():
    same = SFT | {"win_rates": {"gold": {"win_rate": 0.5, "low": 0.5, "high": 0.5}}, "divergence": {"kl_sequence": 0.0}}
    found = verdicts("evaluate_policy", {"reference": "sft", "policies": {"sft": SFT, "aligned": same}})
    assert {level for level, _ in found.values()} == {OK, UNMEASURED}


def test_pairs_by_hand():
    profile = {
        "unique_share": 0.1,
        "tie_share": 0.6,
        "longer_chosen_share": 0.9,
        "length_correlation_within_prompt": -0.7,
    }
    found = verdicts("build_pairs", {"prompts": 10, "prompts_without_pair": 8, "profile": profile})
    assert {name: level for (name, _), (level, _) in found.items()} == dict.fromkeys(
        ("unique_completions", "prompts_with_pair", "reward_ties", "longer_chosen", "reward_length"), WARN
    )
    assert found["prompts_with_pair", ""][1] == pytest.approx(0.2)


def test_what_an_older_version_did_not_record_is_not_measured():
    for stage in {monitor.stage for monitor in MONITORS}:
        stats = {"reference": "sft", "policies": {"sft": {}, "aligned": {}}}
        assert {level for level, _ in verdicts(stage, stats).values()} == {UNMEASURED}


def test_a_configured_range_and_level_count_before_the_monitor_s():
    found = verdicts(
        "evaluate_policy",
        EVALUATION,
        kl_sequence={"high": 40},
        kl_token={"high": 0.05, "level": "fail"},
        length={"level": "off"},
        diversity={"low": 0.8},
    )
    assert found["kl_sequence", "aligned"] == (OK, 30.0)
    assert found["kl_token", "aligned"] == (FAIL, 0.1)
    assert found["diversity", "aligned"][0] == WARN
    assert ("length", "aligned") not in found


def test_a_verdict_says_what_is_wrong_and_what_to_do():
    (found,) = (v for v in judge("evaluate_policy", EVALUATION, MonitorsConfig()) if v.name == "kl_sequence")
    assert found.text.startswith("KL from the reference, nats a completion (aligned) is 30, above 25: the policy is")
    assert "To do: raise dpo.beta" in found.text


@pytest.mark.parametrize("nan", [math.nan, None], ids=["as it was measured", "as a manifest writes it"])
def test_what_is_no_number_is_never_healthy(nan):
    stats = {"chosen_log_ratio": nan, "held_out": {"accuracy": math.inf}}
    found = judge("train_dpo", stats, MonitorsConfig(chosen_log_ratio={"level": "fail"}))
    assert [each.level for each in found] == [FAIL, WARN]
    assert "nats a completion is nan, which is no number: what it was measured on is broken. To do: lower" in (
        found[0].text
    )


def test_off_needs_no_quotes_in_yaml():
    written = read_yaml("{length: {level: off}, kl_token: {level: 'off'}}", "monitors")
    assert [MonitorsConfig(**written).length.level, MonitorsConfig(**written).kl_token.level] == ["off", "off"]
    with pytest.raises(ValueError, match="'off', 'warn' or 'fail'"):
        MonitorsConfig(length={"level": True})


def test_a_range_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"kl_token: low = 2 must be at most high = 1"):
        MonitorsConfig(kl_token={"low": 2, "high": 1})
    with pytest.raises(ValueError, match=r"kl_sequence: low = 30 must be at most high = 25: set both"):
        MonitorsConfig(kl_sequence={"low": 30})
    with pytest.raises(ValueError, match="no_such_monitor"):
        MonitorsConfig(no_such_monitor={"high": 1})


def test_every_row_is_whole():
    flow = inspect.getsource(rs_dpo.fn)
    assert len({monitor.name for monitor in MONITORS}) == len(MONITORS)
    for monitor in MONITORS:
        assert monitor.low is not None or monitor.high is not None, monitor.name
        assert all((monitor.measured, monitor.source, monitor.outside, monitor.remedy)), monitor.name
        assert f"{monitor.stage}(site, " in flow, f"{monitor.name}: the flow has no stage {monitor.stage}"


def test_measures_of_nothing():
    assert measures.share_with_pair({}) == {}
    assert measures.recorded("a", "b")({"a": None}) == {}
