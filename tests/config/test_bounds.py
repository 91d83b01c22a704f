"""Bounds: values just outside, and the ones on the bound that are allowed."""

import math

import pytest
from pydantic import ValidationError
from sections import make

from tasks.config.sections import Function
from tasks.config.settings import (
    DataConfig,
    Decoding,
    EvaluationConfig,
    RewardModelConfig,
    SamplingConfig,
    ScoringConfig,
    SftConfig,
)
from tasks.config.training import DpoConfig, Lora
from tasks.selection.strategies import PairsConfig

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("section", "field", "outside", "inside"),
    [
        (PairsConfig, "tau", [0, -1, NAN, INF], [1e-9]),
        (PairsConfig, "eta", [0.3, 0.4999, 1, 1.5, NAN], [0.5, 0.999]),
        (PairsConfig, "strategy", ["best", ""], ["threshold", "best_vs_worst", "annotation"]),
        (PairsConfig, "max_pairs_per_prompt", [0, -1, 1.5], [1, None]),
        (PairsConfig, "truncated", ["maybe"], ["keep", "drop", "never_chosen"]),
        (SamplingConfig, "k", [1, 0, -1, 2.5], [2]),
        (SamplingConfig, "temperature", [0, -0.1, NAN], [0.01]),
        (SamplingConfig, "top_p", [0, 1.01, NAN], [1, 0.01]),
        (SamplingConfig, "top_k", [-1], [0]),
        (SamplingConfig, "max_new_tokens", [0], [1]),
        (SamplingConfig, "stop", ["text", 3], [[], ["a", "b"]]),
        (SamplingConfig, "seed", [-1], [0]),
        (SamplingConfig, "dtype", ["int8"], ["float32", "bfloat16", "float16"]),
        (SamplingConfig, "engine", ["tgi"], ["auto", "vllm", "transformers"]),
        (SamplingConfig, "part_size", [0], [1]),
        (Decoding, "k", [0], [1]),
        (Decoding, "temperature", [-0.1], [0]),
        (ScoringConfig, "tokens_per_batch", [0], [1]),
        (ScoringConfig, "dtype", ["float64"], ["bfloat16"]),
        (DpoConfig, "beta", [0, -0.1, NAN, INF], [1e-6]),
        (DpoConfig, "learning_rate", [0, -1e-5, NAN], [1e-9]),
        (DpoConfig, "epochs", [0, -1, NAN], [0.1]),
        (DpoConfig, "max_steps", [0], [1, None]),
        (DpoConfig, "batch_size", [0], [1]),
        (DpoConfig, "tokens_per_batch", [0], [1]),
        (DpoConfig, "loss_type", ["aot", "dpo", ["sigmoid", "aot_unpaired"], []], ["ipo"]),
        (DpoConfig, "loss_weights", [[1.0, 0.5], [], [0], [-1]], [[0.5], None]),
        (RewardModelConfig, "micro_batch_size", [0], [1]),
        (DpoConfig, "devices", [0], [1]),
        (DpoConfig, "max_length", [7], [8]),
        (DpoConfig, "warmup_ratio", [-0.1, 1, NAN], [0, 0.99]),
        (DpoConfig, "seed", [-1], [0]),
        (DpoConfig, "save_steps", [0], [1]),
        (DpoConfig, "logging_steps", [0], [1]),
        (DpoConfig, "dtype", ["fp32"], ["bfloat16"]),
        (DpoConfig, "lora", ["r8"], [None, {"r": 4}]),
        (Lora, "r", [0], [1]),
        (Lora, "alpha", [0], [0.1]),
        (Lora, "dropout", [-0.1, 1], [0]),
        (RewardModelConfig, "evaluation_fraction", [-0.1, 1], [0]),
        (EvaluationConfig, "k", [0], [1]),
        (EvaluationConfig, "seed", [-1], [0]),
        (EvaluationConfig, "bootstrap_samples", [99], [100]),
        (Function, "function", ["no_colon", "a:b:c", "a b:c", ":f"], ["tasks.rewards.gold:valence"]),
        (DataConfig, "prompts", ["", None, 3], ["a.jsonl", {"path": "a", "split": "test"}]),
        (DataConfig, "preferences", [""], ["gold", "a.jsonl", None]),
        (DataConfig, "evaluation_fraction", [0, 1, NAN], [0.01]),
        (DataConfig, "max_prompts", [1, 0], [2, None]),
        (DataConfig, "max_evaluation_prompts", [0], [1, None]),
        (DataConfig, "system_prompt", [""], [None, "Be kind."]),
        (DataConfig, "max_bad_fraction", [-0.01, 1.01, NAN], [0, 1]),
        (SftConfig, "ready_model", [None, ""], ["m", {"path": "m", "trust_remote_code": True}]),
    ],
)
def test_bounds(section, field, outside, inside):
    for value in outside:
        with pytest.raises(ValidationError) as caught:
            make(section, **{field: value})
        assert any(field in error["loc"] or field in error["msg"] for error in caught.value.errors()), value
    for value in inside:
        make(section, **{field: value})


@pytest.mark.parametrize(
    ("section", "field"),
    [(SamplingConfig, "temperature"), (DpoConfig, "learning_rate"), (DpoConfig, "epochs"), (Lora, "alpha")],
)
def test_infinity_is_out_of_bounds(section, field):
    with pytest.raises(ValidationError):
        make(section, **{field: INF})


@pytest.mark.parametrize(
    ("section", "field"),
    [
        (DpoConfig, "epochs"),
        (DpoConfig, "save_steps"),
        (DpoConfig, "seed"),
        (DpoConfig, "warmup_ratio"),
        (PairsConfig, "max_pairs_per_prompt"),
        (RewardModelConfig, "evaluation_fraction"),
        (DataConfig, "max_bad_fraction"),
    ],
)
def test_yes_and_no_are_no_numbers(section, field):
    for value in (True, False):
        with pytest.raises(ValidationError, match="must be a number: YAML takes yes"):
            make(section, **{field: value})
    assert make(RewardModelConfig, use_margin=True).use_margin
