"""Settings that a library would refuse, found before anything is read."""

import pytest
from accelerate.state import PartialState

from tasks.adapter_checks import check_adapters
from tasks.artifacts import NOTHING, Artifact
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
    with pytest.raises(ConfigurationError, match=message):
        check(**settings)
    assert not PartialState._shared_state, "the check must leave nothing behind that a training would find"


@pytest.fixture
def story(test_data) -> Artifact:
    return Artifact(kind="model", uri=str(test_data / "stories260k"), digest="story")


@pytest.mark.parametrize(
    ("section", "targets", "passes"),
    [
        ("dpo", ["q_proj", "v_proj"], True),
        ("dpo", ["self_attn.q_proj"], True),
        ("dpo", r".*layers\.[01]\..*_proj", True),
        ("reward_model", ["o_proj"], True),
        ("dpo", ["q_proj", "qkv_proj"], False),
        ("sft", ["query_key_value"], False),
        ("reward_model", r"layers.*q_proj", False),
    ],
)
def test_adapters_are_for_modules_that_there_are(story, section, targets, passes):
    lora = {section: {"lora": {"target_modules": targets}}}
    sections = (
        SftConfig(base_model="m", **lora.get("sft", {})),
        RewardModelConfig(**lora.get("reward_model", {})),
        DpoConfig(**lora.get("dpo", {})),
    )
    if passes:
        check_adapters(story, NOTHING, *sections)
        return
    name = targets if isinstance(targets, str) else targets[-1]
    with pytest.raises(
        ConfigurationError, match=rf"{section}.lora.target_modules: .* no module .*; it has .*q_proj"
    ) as e:
        check_adapters(story, NOTHING, *sections)
    assert repr(name) in str(e.value)


def test_what_a_library_takes_passes():
    check(
        sft={"extra": {"weight_decay": "1e-2", "gradient_checkpointing": True, "fsdp": "full_shard auto_wrap"}},
        dpo={
            "scheduler": "cosine_with_min_lr",
            "extra": {"lr_scheduler_kwargs": {"min_lr": "1e-7"}, "f_divergence_type": "js_divergence"},
        },
        scheduler="linear",
    )
