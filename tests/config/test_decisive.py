"""Of the settings, those that decide an output are in its key."""

import pytest
from sections import make

from tasks.config.settings import DataConfig, RewardModelConfig, SamplingConfig, ScoringConfig, SftConfig
from tasks.config.training import DpoConfig
from tasks.selection.strategies import PairsConfig


def changed(section, **fields):
    """Tell whether fields change what decides a stage's key."""
    return make(section, **fields).key_fields() != make(section).key_fields()


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        (SamplingConfig, {"engine": "transformers"}),
        (SamplingConfig, {"part_size": 3}),
        (SamplingConfig, {"extra": {"gpu_memory_utilization": 0.5}}),
        (ScoringConfig, {"tokens_per_batch": 3}),
        (RewardModelConfig, {"micro_batch_size": 1}),
        (DpoConfig, {"tokens_per_batch": 1}),
        (DpoConfig, {"save_steps": 7}),
        (DpoConfig, {"logging_steps": 7}),
        (DataConfig, {"prompts": {"path": "elsewhere/p.jsonl", "revision": "main", "name": "n", "split": "test"}}),
        (SftConfig, {"ready_model": {"path": "elsewhere/m", "chat_template": "plain"}}),
    ],
)
def test_how_a_stage_runs_is_not_in_its_key(section, fields):
    assert not changed(section, **fields)


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        (SamplingConfig, {"k": 8}),
        (SamplingConfig, {"temperature": 0.5}),
        (SamplingConfig, {"stop": ["x"]}),
        (SamplingConfig, {"seed": 1}),
        (SamplingConfig, {"dtype": "bfloat16"}),
        (ScoringConfig, {"dtype": "bfloat16"}),
        (PairsConfig, {"eta": 0.9}),
        (PairsConfig, {"truncated": "keep"}),
        (DpoConfig, {"beta": 0.2}),
        (DpoConfig, {"lora": None}),
        (DpoConfig, {"lora": {"r": 4}}),
        (DpoConfig, {"extra": {"weight_decay": 0.1}}),
        (DataConfig, {"system_prompt": "Be kind."}),
        (SftConfig, {"ready_model": {"path": "m", "trust_remote_code": True}}),
    ],
)
def test_what_decides_the_output_is_in_the_key(section, fields):
    assert changed(section, **fields)
