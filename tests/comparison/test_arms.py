"""Arms: grids, seeds, and what is refused."""

import pytest
from arm_loads import load
from pydantic import ValidationError
from runs import ROOT

from flows.config_files import load_values, read_file
from tasks.comparison.arms import ComparisonConfig, configurations, expand
from tasks.config.compute import GPU_STAGES
from tasks.config.errors import ConfigurationError


def comparison(**fields):
    return ComparisonConfig.model_validate({"base": "x.yaml", "arms": {"a": {}}, **fields})


def runs(**fields):
    asked = comparison(**fields)
    return configurations(asked, expand(asked), load)


def test_a_list_makes_an_arm_of_each_value_and_lists_of_each_combination():
    arms = expand(comparison(arms={"grid": {"pairs.eta": [0.8, 0.9], "pairs.tau": [1, 2], "dpo.beta": 0.1}, "a": {}}))
    assert [arm.name for arm in arms] == [
        "grid, eta 0.8, tau 1",
        "grid, eta 0.8, tau 2",
        "grid, eta 0.9, tau 1",
        "grid, eta 0.9, tau 2",
        "a",
    ]
    assert arms[1].overrides == {"pairs.eta": 0.8, "pairs.tau": 2, "dpo.beta": 0.1}
    assert expand(comparison(arms={"a": {"dpo.loss_type": [["sigmoid", "sft"]]}}))[0].overrides == {
        "dpo.loss_type": ["sigmoid", "sft"]
    }


def test_one_seed_moves_sampling_caps_training_and_evaluation_together():
    asked = comparison(arms={"a": {}, "b": {"pairs.eta": 0.9}}, seeds=[3, 4], set={"dpo.beta": 0.2})
    found = configurations(asked, expand(asked), load)
    assert list(found) == [("a", 3), ("a", 4), ("b", 3), ("b", 4)]
    config = found["b", 4]
    assert {config.sampling.seed, config.pairs.seed, config.dpo.seed, config.evaluation.seed} == {4}
    assert (config.pairs.eta, config.dpo.beta) == (0.9, 0.2)
    assert config.sft.seed == 0, "what all arms begin with is shared"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": [1, 1]}, "must be different numbers"),
        ({"seeds": [-1]}, "must be different numbers"),
        ({"seeds": []}, "at least 1"),
        ({"arms": {}}, "at least 1"),
        ({"arms": {"a": {"pairs.eta": [0.5 + n / 30000 for n in range(10000)]}}}, "50000 runs are asked for"),
        ({"reward": "golden"}, "reward = 'golden' is no reward of a run: there are reward_model"),
        ({"controls": ["z"]}, "are no arms: there are a"),
        ({"arms": {"a": {}, "b": {"pairs.eta": 0.85}}}, "the arms a and b are the same"),
        ({"arms": {"a": {"pairs.eta": [0.9, 0.9]}}}, "are the same"),
        ({"arms": {"a": {"dpo.seed": 3}}}, "dpo.seed is moved by `seeds`"),
        ({"arms": {"a": {"pairs.eta": 1.5}}}, "less than 1"),
        ({"arms": {"a": {"pairs.etta": 0.9}}}, "etta"),
        ({"armz": {}}, "armz"),
        ({"at_once": 0}, "greater than or equal to 1"),
        ({"at_once": 2}, "at_once = 2 needs a deployment in compute.evaluate_policy"),
        ({"at_once": 2, "set": {"compute.train_dpo": "train-dpo/gpu"}}, "trainings side by side on one machine"),
    ],
)
def test_what_cannot_be_compared_is_refused(fields, message):
    with pytest.raises((ConfigurationError, ValidationError), match=message):
        runs(**fields)


def test_runs_go_at_once_where_every_gpu_stage_has_a_pool():
    pools = {f"compute.{stage}": f"{stage}/gpu" for stage in GPU_STAGES}
    assert len(runs(at_once=2, set=pools)) == 5
    no_rloo = {name: pool for name, pool in pools.items() if name != "compute.train_rloo"}
    assert len(runs(at_once=2, set=no_rloo)) == 5, "no run has the stage"
    with pytest.raises(ConfigurationError, match=r"compute\.train_rloo"):
        runs(at_once=2, set=no_rloo, arms={"online": {"algorithm": "rloo"}})
    assert len(runs(at_once=1)) == 5


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("compare*.yaml")), ids=lambda path: path.name)
def test_shipped_comparisons_are_valid(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("RSDPO_TEST_DATA", "anywhere")  # what configs/stories.yaml names is not read here
    asked = ComparisonConfig.model_validate(read_file(str(path), []))
    assert len(configurations(asked, expand(asked), load_values)) >= 5 * len(asked.arms)
