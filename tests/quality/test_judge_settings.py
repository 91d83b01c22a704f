"""What is typed wrong about rewards and sets is refused, with the setting and the remedy."""

import pytest
from pydantic import ValidationError
from runs import ROOT

from flows.config_files import explain, read_section
from tasks.quality.settings import JudgeRewardsConfig

FUNCTION = {"function": "own_rewards:length"}
PAIRS = {"mine": {"source": "pairs.jsonl"}}
GOOD = {"rewards": {"length": FUNCTION}, "pairs": PAIRS}


def refused(**changes) -> str:
    with pytest.raises(ValidationError) as caught:
        JudgeRewardsConfig.model_validate({**GOOD, **changes})
    return explain(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": {}}, "rewards: Dictionary should have at least 1 item"),
        ({"rewards": {"gold": FUNCTION}}, "rewards.gold: the name is taken"),
        ({"rewards": {"rm": {"reward_model": {"learning_rate": 1e-5}}}}, "rewards.rm has a reward model without ready"),
        (
            {"rewards": {"rm": {"reward_model": {"ready_model": "m", "seed": 1}}}},
            "rewards.rm: seed is read where a reward model is trained, and this one is ready: leave it out",
        ),
        ({"pairs": {}}, "there is nothing to judge on: name a set in pairs or in samples"),
        ({"samples": {"mine": {"source": "s", "gold_column": "g"}}}, "mine names a set of pairs and one of samples"),
        ({"samples": {"other": {"source": "s"}}}, "set one of gold_column (a column of s) and held_out"),
        (
            {"samples": {"other": {"source": "s", "held_out": "best"}}},
            "samples.other.held_out = 'best' is none of rewards: length",
        ),
        ({"bias": {"set": "yours"}}, "bias.set = 'yours' is none of the sets: mine"),
        ({"pairs": {"mine": {"source": "s", "format": "csv"}}}, "pairs.mine.format = 'csv'"),
        (
            {"pairs": {"mine": {"source": "s", "format": "rewardbench", "category": "id"}}},
            "category = 'id': RewardBench's sections are made of its column subset",
        ),
        ({"tau": 0}, "tau = 0: Input should be greater than 0"),
        ({"pears": 1}, "pears is no known setting"),
    ],
)
def test_what_does_not_fit(changes, message):
    assert message in refused(**changes)


def test_an_ensemble_of_ready_models_is_taken():
    members = [{"ready_model": "a"}, {"ready_model": "b"}]
    config = JudgeRewardsConfig.model_validate({**GOOD, "rewards": {"both": {"ensemble": members}}})
    assert [own.ready_model.path for own in config.rewards["both"].reward_models] == ["a", "b"]
    assert config.audited == "mine"


def test_every_setting_is_documented():
    sections = {JudgeRewardsConfig, *(type(own) for own in JudgeRewardsConfig.model_validate(GOOD).sets.values())}
    assert not [name for each in sections for name, field in each.model_fields.items() if not field.description]


def test_the_shipped_file_is_valid(monkeypatch):
    monkeypatch.setenv("REWARD_MODEL", "/somewhere")
    config = read_section(JudgeRewardsConfig, str(ROOT / "configs/judge_rewards.yaml"), [])
    assert [own.format for own in config.pairs.values()] == ["rewardbench", "pairs"]
