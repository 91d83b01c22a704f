"""Settings that a library would refuse, found before anything is read."""

import pytest
from accelerate.state import PartialState

from flows.inputs import check_settings
from tasks.config.errors import ConfigurationError
from tasks.pipeline.checks import log_unread_settings
from tasks.pipeline.configuration import Config


def config(**sections) -> Config:
    data = {"prompts": "p", "demonstrations": "d", "preferences": "r"} | sections.pop("data", {})
    return Config.model_validate({"data": data, **sections})


def check(sft=None, dpo=None, **reward_model) -> None:
    check_settings(config(sft={"base_model": "m", **(sft or {})}, dpo=dpo or {}, reward_model=reward_model))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sft": {"scheduler": "cosin"}}, r"sft.scheduler = 'cosin' .*not a valid SchedulerType"),
        ({"sft": {"extra": {"weight_decay": "much"}}}, r"sft.extra.weight_decay = 'much': .*valid number"),
        (
            {"sft": {"extra": {"weight_decay": "0.1"}}},
            r"sft.extra.weight_decay = '0.1' must be a number: take the quot",
        ),
        ({"dpo": {"extra": {"optim": "adamw_tporch"}}}, r"dpo.scheduler = 'cosine' and dpo.extra = .*adamw_tporch"),
        (
            {"extra": {"neftune_noise_alpha": []}},
            r"reward_model.extra.neftune_noise_alpha = \[\]: .*number",
        ),
        ({"dpo": {"scheduler": "cosine_with_min_lr"}}, r"dpo.scheduler = 'cosine_with_min_lr' .*min_lr"),
    ],
)
def test_what_a_library_refuses_is_refused_at_once(settings, message):
    before = dict(PartialState._shared_state)
    with pytest.raises(ConfigurationError, match=message):
        check(**settings)
    assert PartialState._shared_state == before, "the check must leave nothing behind that a training would find"


def test_what_a_library_takes_passes():
    check(
        sft={"extra": {"weight_decay": "1e-2", "gradient_checkpointing": True, "fsdp": "full_shard auto_wrap"}},
        dpo={
            "scheduler": "cosine_with_min_lr",
            "extra": {"lr_scheduler_kwargs": {"min_lr": "1e-7"}, "f_divergence_type": "js_divergence"},
        },
        scheduler="linear",
    )


@pytest.mark.parametrize(
    ("data", "sft", "reward_model", "pairs", "unread"),
    [
        ({}, {"base_model": "m", "seed": 1}, {"epochs": 2}, {"eta": 0.9, "max_pairs_per_prompt": 2, "seed": 1}, []),
        ({"demonstrations": None}, {"ready_model": "m"}, {}, {}, []),
        ({}, {"ready_model": "m", "epochs": 2, "seed": 1}, {}, {}, ["sft.epochs, sft.seed", "data.demonstrations"]),
        ({}, {"base_model": "m"}, {"ready_model": "r", "epochs": 2}, {}, ["reward_model.epochs", "data.preferences"]),
        ({}, {"base_model": "m"}, {"ready_model": "r"}, {"strategy": "annotation"}, []),
        ({}, {"base_model": "m"}, {}, {"strategy": "best_vs_worst", "eta": 0.9, "seed": 1}, ["pairs.eta, pairs.seed"]),
        ({}, {"base_model": "m"}, {}, {"strategy": "shuffled", "eta": 0.9, "seed": 1}, []),
        ({}, {"base_model": "m"}, {}, {"beta_rso": 0.1, "max_pairs": 9, "seed": 1}, ["pairs.beta_rso"]),
        (
            {"evaluation_prompts": "e", "evaluation_fraction": 0.2},
            {"base_model": "m"},
            {},
            {},
            ["data.evaluation_fraction"],
        ),
    ],
)
def test_settings_that_another_leaves_without_effect(data, sft, reward_model, pairs, unread, capsys):
    log_unread_settings(config(data=data, sft=sft, reward_model=reward_model, pairs=pairs))
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(": ", 1)[1] for line in lines] == unread
    assert all(line.startswith("WARNING: settings without effect because of ") for line in lines)


def test_settings_of_a_ready_reward_model_beside_others_are_without_effect(capsys):
    """The run's preferences train `new`, so that they have an effect."""
    rewards = {
        "old": {"reward_model": {"ready_model": "m", "epochs": 2}},
        "both": {"ensemble": [{"ready_model": "a"}, {"ready_model": "b", "preferences": "p"}]},
        "new": {"reward_model": {"epochs": 2}},
    }
    log_unread_settings(config(sft={"base_model": "m"}, reward_model={"ready_model": "m"}, rewards=rewards))
    lines = capsys.readouterr().out.splitlines()
    unread = ["rewards.old.reward_model.epochs", "rewards.both.ensemble[1].preferences"]
    assert [line.rsplit(": ", 1)[1] for line in lines] == unread


KEEP = {"snapshots": 1, "keep": "best"}
BRIEF, LEXICON = ({"function": f"tasks.rewards.gold:{name}"} for name in ("facts", "valence"))


@pytest.mark.parametrize(
    ("sections", "held_out"),
    [
        ({"reward_model": {"held_out": True}}, ("held_out_model",)),
        ({"rewards": {"brief": BRIEF}, "pairs": {"rewards": {"reward_model": {}}}}, ("brief",)),
        ({"rewards": {"brief": BRIEF}, "pairs": {"rewards": {"brief": {}}}}, ("reward_model",)),
        (
            {"rewards": {"sure": {"ensemble": [{}, {"seed": 1}]}}, "pairs": {"rewards": {"reward_model": {}}}},
            ("sure.1", "sure.2"),
        ),
    ],
)
def test_the_best_model_is_kept_by_the_reward_that_pairs_are_not_selected_by(sections, held_out):
    chosen = config(sft={"base_model": "m"}, dpo=KEEP, **sections)
    check_settings(chosen)
    assert chosen.held_out == held_out
    assert config(sft={"base_model": "m"}, **sections).held_out == ()


@pytest.mark.parametrize(
    ("sections", "there_are"),
    [
        ({}, "none"),
        ({"rewards": {"brief": BRIEF}, "pairs": {"rewards": {"brief": {}, "reward_model": {}}}}, "none"),
        (
            {"rewards": {"brief": BRIEF, "valence": LEXICON}, "pairs": {"rewards": {"reward_model": {}}}},
            "brief, valence",
        ),
    ],
)
def test_without_one_such_reward_no_best_model_can_be_kept(sections, there_are):
    with pytest.raises(
        ConfigurationError, match=f"by the one reward .* and there are {there_are}: set reward_model.he"
    ):
        check_settings(config(sft={"base_model": "m"}, dpo=KEEP, **sections))
