"""Sweeps: which arms stand on one axis, and where."""

import math

import pytest
from arm_loads import load

from tasks.comparison.arms import ComparisonConfig, configurations, expand
from tasks.comparison.sweeps import GAP_AXIS, sweeps, swept_settings


def found(**arms):
    asked = ComparisonConfig(base="x", arms=arms, seeds=(0, 1))
    runs = configurations(asked, expand(asked), load)
    return sweeps(swept_settings(asked.arms), {arm: config for (arm, _), config in runs.items()})


def test_tau_and_eta_are_one_axis_and_two_settings_of_one_gap_stand_at_one_place():
    (sweep,) = found(eta={"pairs.eta": [0.9, 0.85, 0.8]}, tau={"pairs.tau": [0.8, 1.2]})
    assert sweep.axis == GAP_AXIS
    (points,) = sweep.series.values()
    assert [arm for _, arm in points] == [
        "eta, eta 0.8",
        "tau, tau 0.8",
        "eta, eta 0.85",
        "tau, tau 1.2",
        "eta, eta 0.9",
    ]
    assert [at for at, _ in points] == pytest.approx([1.3863, 1.3877, 1.7346, 2.0815, 2.1972], abs=1e-4)
    assert points[0].at == pytest.approx(math.log(4))
    assert points[1].at == pytest.approx(0.8 * math.log(17 / 3))


def test_an_arm_that_no_grid_has_made_comes_to_the_sweep_that_it_fits():
    (sweep,) = found(plain={}, beta={"dpo.beta": [0.05, 0.2]}, other={"pairs.strategy": "best_vs_worst"})
    assert sweep.axis == "dpo.beta"
    assert sweep.series == {"plain": [(0.05, "beta, beta 0.05"), (0.1, "plain"), (0.2, "beta, beta 0.2")]}


def test_a_grid_of_two_settings_is_a_sweep_of_each_with_a_line_for_every_value_of_the_other():
    gap, beta = found(grid={"pairs.eta": [0.8, 0.9], "dpo.beta": [0.1, 0.2]})
    assert {name: [arm for _, arm in points] for name, points in gap.series.items()} == {
        "grid, beta 0.1": ["grid, eta 0.8, beta 0.1", "grid, eta 0.9, beta 0.1"],
        "grid, beta 0.2": ["grid, eta 0.8, beta 0.2", "grid, eta 0.9, beta 0.2"],
    }
    assert list(beta.series) == ["grid, eta 0.8", "grid, eta 0.9"]
    assert [at for at, _ in beta.series["grid, eta 0.9"]] == [0.1, 0.2]


def test_lines_of_one_name_stay_apart():
    names = {"a": {"pairs.eta": [0.8, 0.9]}, "a, eta 0.7": {"pairs.eta": [0.8, 0.9], "dpo.beta": 0.2}}
    (sweep,) = found(**names)
    assert list(sweep.series) == ["a", "a, eta 0.7, eta 0.8"]


@pytest.mark.parametrize(
    "arms",
    [
        {"a": {}, "b": {"pairs.eta": 0.9}},
        {"grid": {"pairs.strategy": ["threshold", "best_vs_worst"]}},
        {"grid": {"dpo.lora": [None, {"r": 4}]}},
        {"grid": {"pairs.max_pairs": [10]}},
    ],
)
def test_what_is_no_list_of_numbers_is_no_sweep(arms):
    assert found(**arms) == []


def test_a_setting_of_a_section_within_a_section_is_swept():
    (sweep,) = found(rank={"dpo.lora.r": [16, 4]}, none={"dpo.lora": None})
    assert sweep == ("dpo.lora.r", {"rank": [(4, "rank, r 4"), (16, "rank, r 16")]})
