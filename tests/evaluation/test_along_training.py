"""Rewards along a training: the best model by hand, falls by hand, and that trainings without one are not doubted."""

import numpy as np
import pytest
from evaluated import samples

from tasks.evaluation.along import best_place, complete, falls, gains, in_order, read_falls, standard_errors
from tasks.monitors.judging import OK, WARN, MonitorsConfig, judge
from tasks.monitors.table import MONITORS

(BOUND,) = (monitor.high for monitor in MONITORS if monitor.name == "held_out_fall")
UP, DOWN = np.array([1.0, 2.0, 3.0, 2.0]), np.array([-1.0, -2.0, -3.0, -2.0])
ZERO = np.zeros(4)


def test_models_are_in_the_order_of_their_steps():
    assert in_order({"step-12": 1, "sft": 1, "last": 1, "step-4": 1}) == ["step-4", "step-12", "last"]
    assert in_order({"sft": 1}) == []


def test_standard_errors_by_hand():
    assert standard_errors(np.array([1.0, 3.0])) == pytest.approx(2.0)  # mean 2, deviation sqrt 2, over sqrt 2
    assert standard_errors(-UP) == pytest.approx(-standard_errors(UP))
    assert (standard_errors(ZERO), standard_errors(ZERO + 1), standard_errors(ZERO - 1)) == (0.0, np.inf, -np.inf)


def test_the_best_model_is_the_earliest_within_a_standard_error():
    noise = np.array([3.0, -1.0, 3.0, -1.0])  # mean 1, standard error 1.15
    assert best_place(np.stack([ZERO, UP, DOWN])) == (1, 1)
    assert best_place(np.stack([ZERO, noise, DOWN])) == (1, 0)
    assert best_place(np.stack([ZERO, ZERO, ZERO])) == (0, 0)


def test_gains_are_means_of_a_prompt_s_completions_less_the_reference_s():
    before, after = [[0.0, 2.0], [1.0, None], [3.0, 3.0]], [[4.0, 4.0], [1.0, 5.0], [None, None]]
    found = gains(samples(sft={"r": before}, new={"r": after}), "new", "sft")
    np.testing.assert_array_equal(found["r"], [3.0, 2.0, np.nan])
    np.testing.assert_array_equal(complete([found["r"], ZERO[:3]]), [[3.0, 2.0], [0.0, 0.0]])


def test_a_fall_by_hand():
    models = [{"proxy": ZERO, "other": UP, "part": ZERO}, {"proxy": UP, "other": ZERO, "part": ZERO}]
    (name,) = found = falls(models, ["step-1", "last"], "proxy", ["proxy", "part"])
    assert (name, found[name]["after"]) == ("other", "step-1")
    assert found[name]["errors"] == pytest.approx(2 / (np.std(UP, ddof=1) / 2))
    assert falls(models[::-1], ["step-1", "last"], "proxy", ["part"])["other"] == {"after": "last", "errors": 0.0}
    both_fall = [{"proxy": UP, "other": UP}, {"proxy": ZERO, "other": ZERO}]
    assert falls(both_fall, ["step-1", "last"], "proxy", [])["other"]["errors"] < 0
    alone = [{name: values[:1] for name, values in own.items()} for own in models]
    assert falls(alone, ["step-1", "last"], "proxy", []) == {}, "one prompt tells nothing of noise"


@pytest.mark.parametrize("with_last", [False, True], ids=["the aligned policy is the last", "the curve has the last"])
def test_falls_are_read_from_two_evaluations(with_last):
    sft = {"proxy": [[0.0]] * 4, "gold": [[0.0]] * 4}
    early = {"proxy": [[1.0], [2.0], [1.0], [2.0]], "gold": [[2.0], [3.0], [2.0], [3.0]]}
    late = {"proxy": [[3.0], [5.0], [3.0], [5.0]], "gold": [[0.0], [1.0], [0.0], [0.5]]}
    along = {"sft": sft, "step-8": early, **({"last": late} if with_last else {})}
    end = {"sft": sft, "aligned": early if with_last else late}
    curve, compared = ((samples(**own), {"policies": own, "reference": "sft"}) for own in (along, end))
    found = read_falls(curve, compared, "proxy", ["proxy"])
    assert found["gold"]["after"] == "step-8"
    (verdict,) = (
        each
        for each in judge("evaluate_policy", {**compared[1], "falls": found, "policies": {"sft": {}}}, MonitorsConfig())
        if each.name == "held_out_fall"
    )
    assert (verdict.level, verdict.about) == (WARN, "gold, best after step-8")


def test_a_training_without_a_fall_is_seldom_doubted():
    random, doubted = np.random.default_rng(0), dict[int, float]()
    for number, trials in ((2, 300), (6, 300), (21, 100)):
        proxy = np.cumsum(np.ones((number, 20)), axis=0)
        found = [
            falls(
                [{"proxy": own, "other": noise} for own, noise in zip(proxy + jitter, level, strict=True)],
                [f"step-{step}" for step in range(number)],
                "proxy",
                [],
            )["other"]["errors"]
            for jitter, level in zip(
                random.normal(size=(trials, number, 20)), random.normal(size=(trials, number, 20)), strict=True
            )
        ]
        doubted[number] = float(np.mean(np.array(found) > BOUND))
    assert max(doubted.values()) <= 0.02, doubted


def test_a_fall_that_is_there_is_found():
    random = np.random.default_rng(0)
    level = np.array([0.0, 0.5, 1.0, 0.8, 0.0])[:, None] + 0.5 * random.normal(size=(5, 80))
    proxy = np.arange(5.0)[:, None] + 0.5 * random.normal(size=(5, 80))
    models = [{"proxy": one, "gold": other} for one, other in zip(proxy, level, strict=True)]
    found = falls(models, ["step-2", "step-4", "step-6", "step-8", "last"], "proxy", [])["gold"]
    assert found["after"] == "step-6"
    assert found["errors"] > 6


def test_where_nothing_was_kept_along_the_training_nothing_is_doubted():
    verdicts = judge("evaluate_policy", {"reference": "sft", "policies": {"sft": {}}, "falls": {}}, MonitorsConfig())
    assert {each.level for each in verdicts if each.name == "held_out_fall"} == {"not measured"}
    rising = {"falls": {"gold": {"after": "last", "errors": 0.0}}, "reference": "sft", "policies": {"sft": {}}}
    verdicts = judge("evaluate_policy", rising, MonitorsConfig())
    assert [(each.level, each.value) for each in verdicts if each.name == "held_out_fall"] == [(OK, 0.0)]
