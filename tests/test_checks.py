"""Settings that a library would refuse, found before anything is read."""

import pytest
from accelerate.state import PartialState

from tasks.checks import check_run
from tasks.config import DataConfig, EvaluationConfig, PairsConfig, RewardModelConfig, SftConfig
from tasks.errors import ConfigurationError
from tasks.training_config import DpoConfig


def check(sft=None, dpo=None, **reward_model) -> None:
    check_run(
        DataConfig(prompts="p", demonstrations="d", preferences="r"),
        SftConfig(base_model="m", **sft or {}),
        RewardModelConfig(**reward_model),
        PairsConfig(),
        DpoConfig(**dpo or {}),
        EvaluationConfig(),
    )


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
            {"extra": {"center_rewards_coefficient": []}},
            r"reward_model.extra.center_rewards_coefficient = \[\]: .*number",
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
