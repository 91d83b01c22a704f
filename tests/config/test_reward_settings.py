"""Rewards as they are configured: what is mistyped is told before anything is computed."""

import pytest
from pydantic import ValidationError

from flows.config_files import load_config
from tasks.config.errors import ConfigurationError
from tasks.pipeline.checks import check_run
from tasks.pipeline.configuration import Config

BASE = {"data": {"prompts": "p", "preferences": "q"}, "sft": {"ready_model": "m"}}
BRIEF = {"function": "own:brief"}
JUDGE = {"model": "m", "base_url": "http://127.0.0.1:1/v1"}


def configured(**sections):
    config = Config.model_validate(BASE | sections)
    check_run(config)
    return config


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"rewards": {"brief": BRIEF}},
            "must say what each of the rewards reward_model, brief counts for",
        ),
        ({"rewards": {"Brief": BRIEF}, "pairs": {"rewards": {"Brief": {}}}}, "'Brief' must be lower-case letters"),
        ({"rewards": {"gold": BRIEF}}, "rewards.gold: the name is taken"),
        ({"rewards": {"a": {}}}, "set exactly one of reward_model, ensemble, function and judge, not none"),
        ({"rewards": {"a": BRIEF | {"reward_model": {}}}}, "not reward_model and function"),
        ({"rewards": {"a": {"reward_model": {}, "options": {"x": 1}}}}, "options are read by a function alone"),
        ({"rewards": {"a": {"judge": JUDGE, "max_failed": 0.5}}}, "max_failed is read by a function alone"),
        ({"rewards": {"a": {"ensemble": [{}]}}}, "ensemble has one reward model"),
        (
            {"rewards": {"a": {"reward_model": {"held_out": True}}}},
            "read in the section reward_model alone",
        ),
        ({"rewards": {"a": BRIEF | {"options": {"api_key": "x"}}}}, "a secret must not be here"),
        ({"pairs": {"rewards": {"kind": {}}}}, "pairs.rewards.kind is no reward of this run: there are reward_model"),
        ({"pairs": {"rewards": {"reward_model": {"uncertainty": 1}}}}, "and reward_model is none"),
        ({"pairs": {"strategy": "pareto"}}, "pareto needs several rewards with a weight in pairs.rewards, not 1"),
        (
            {
                "rewards": {"long": BRIEF},
                "pairs": {"strategy": "pareto", "rewards": {"reward_model": {"weight": 2}, "long": {"weight": -1}}},
            },
            "pairs.rewards.long.weight = -1 must be positive with pairs.strategy = pareto",
        ),
        ({"data": {"prompts": "p"}}, "data.preferences is missing"),
        (
            {"data": {"prompts": "p"}, "rewards": {"a": BRIEF}, "reward_model": {"held_out": True}},
            "reward_model.held_out needs data.preferences",
        ),
        (
            {
                "data": {"prompts": "p", "preferences": [{"path": "a", "weight": 2}, {"path": "b"}]},
                "reward_model": {"loss": "plackett_luce"},
            },
            "reward_model is trained on preferences with weights .*takes each ranking once",
        ),
        (
            {
                "rewards": {
                    "a": {"reward_model": {"loss": "plackett_luce", "preferences": {"path": "a", "weight": 2}}}
                },
                "pairs": {"rewards": {"a": {}}},
            },
            "a is trained on preferences with weights .2.0., and its loss = plackett_luce",
        ),
        (
            {"data": {"prompts": "p", "preferences": "judged", "judge": JUDGE}, "reward_model": {"ready_model": "r"}},
            "pays for pairs that no reward model of this run is trained on",
        ),
        (
            {"data": {"prompts": "p"}, "rewards": {"a": {"reward_model": {}}}},
            "rewards.a has a reward model with no",
        ),
    ],
)
def test_what_is_mistyped_is_told_with_its_name(sections, said):
    with pytest.raises((ValidationError, ConfigurationError), match=said):
        configured(**sections)


def test_rewards_by_name_and_what_pairs_come_from():
    alone = configured()
    assert list(alone.reward_models) == ["reward_model"]
    assert (alone.selecting, alone.proxy) == (["reward_model"], "reward_model")
    sure = {"ensemble": [{"seed": 1}, {"ready_model": "r"}]}
    several = configured(
        reward_model={"held_out": True},
        rewards={"sure": sure, "brief": BRIEF},
        pairs={"rewards": {"sure": {}, "brief": {"weight": 0, "at_least": 1}}},
    )
    assert [(name, half) for name, (_, half) in several.reward_models.items()] == [
        ("reward_model", 1),
        ("sure.1", 0),
        ("sure.2", 0),
        ("held_out_model", 2),
    ]
    assert (several.selecting, several.proxy) == (["sure.1", "sure.2", "brief"], "combined")
    one = configured(data={"prompts": "p"}, rewards={"brief": BRIEF})
    assert (list(one.reward_models), one.selecting, one.proxy) == ([], ["brief"], "brief")


def test_weights_count_where_they_are_trained_on():
    """A ranking loss on preferences of its own does not read the weights of the run's."""
    own = {"reward_model": {"loss": "plackett_luce", "preferences": "ranked"}}
    weighted = {"prompts": "p", "preferences": [{"path": "a", "weight": 2}, {"path": "b"}]}
    configured(data=weighted, rewards={"a": own}, pairs={"rewards": {"a": {}}})


def test_two_rewards_of_one_name_are_refused(tmp_path):
    text = "data: {prompts: p}\nsft: {ready_model: m}\nrewards:\n  a: {function: 'own:a'}\n  a: {function: 'own:b'}\n"
    (tmp_path / "twice.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match="a"):
        load_config(str(tmp_path / "twice.yaml"), [])
