"""Every bound of every section, what decides a stage's key, and the shipped configurations."""

import math

import pytest
from pydantic import BaseModel, ValidationError
from runs import ROOT

from flows.config_files import load_config
from tasks.config.data import DataConfig
from tasks.config.evaluation import EvaluationConfig
from tasks.config.judges import Criterion, JudgeConfig, Principle
from tasks.config.rewards import RewardSource
from tasks.config.sections import DataSource, Function, ModelSource, Section
from tasks.config.settings import Decoding, RewardModelConfig, SamplingConfig, ScoringConfig, SftConfig
from tasks.config.training import DpoConfig, Lora
from tasks.pipeline.configuration import Config
from tasks.selection.strategies import SETTINGS, PairsConfig

OF_OTHERS = ("benchmarks", "compare", "judge", "rounds")
"""Beginnings of the names of files that other flows read, such as `flows.compare`."""
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if not path.name.startswith(OF_OTHERS))


NAN, INF = math.nan, math.inf


LEAST: dict[type[Section], dict] = {
    DataConfig: {"prompts": "p.jsonl"},
    SftConfig: {"ready_model": "m"},
    Function: {"function": "m:f"},
    JudgeConfig: {"model": "m", "base_url": "http://127.0.0.1:1/v1"},
    Criterion: {"description": "d"},
    Principle: {"text": "t"},
    RewardSource: {"function": "m:f"},
}
"""What a section cannot do without."""


def make(section, **fields):
    return section(**{**LEAST.get(section, {}), **fields})


# Bounds: values just outside, and the ones on the bound that are allowed.


@pytest.mark.parametrize(
    ("section", "field", "outside", "inside"),
    [
        (PairsConfig, "tau", [0, -1, NAN, INF], [1e-9]),
        (PairsConfig, "eta", [0.3, 0.4999, 1, 1.5, NAN], [0.5, 0.999]),
        (PairsConfig, "strategy", ["best", ""], [*SETTINGS]),
        (PairsConfig, "max_pairs_per_prompt", [0, -1, 1.5], [1, None]),
        (PairsConfig, "max_pairs", [0, -1, 1.5], [1, None]),
        (PairsConfig, "beta_rso", [0, -1, NAN, INF], [1e-9]),
        (PairsConfig, "accepted_rso", [1, 0, 2.5], [2]),
        (PairsConfig, "ranking_rso", ["all"], ["first_round", "tournament"]),
        (PairsConfig, "pass_rate", [{"at": 0}, {"at": NAN, "least": 0.1}], [{"at": -1, "most": 0.9}, None]),
        (PairsConfig, "rip", [{"most_gap": 0}, {"least_rejected_length": 0}, None], [{}, {"most_gap": 1}]),
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
        (DpoConfig, "loss_type", ["SimPO", "kto_pair"], ["simpo", "kto", ["sigmoid", "sft_sequence"]]),
        (DpoConfig, "simpo_beta", [0, -1, INF], []),
        (DpoConfig, "simpo_gamma", [-0.1, NAN], []),
        (DpoConfig, "orpo_weight", [-0.1], []),
        (DpoConfig, "odpo_alpha", [-0.1], []),
        (DpoConfig, "odpo_scale", ["sqrt"], ["log"]),
        (DpoConfig, "rpo_eta", [0, -1], []),
        (DpoConfig, "rpo_distance", ["kl"], ["backward"]),
        (DpoConfig, "kto_desirable_weight", [0, -1, INF], []),
        (DpoConfig, "kto_undesirable_weight", [0, -1], []),
        (DpoConfig, "weight_pairs", ["none", None], ["pair", "prompt"]),
        (DpoConfig, "loss_weights", [[1.0, 0.5], [], [0], [-1]], [[0.5], None]),
        (RewardModelConfig, "tokens_per_batch", [0], [1]),
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
        (DataConfig, "preferences", [""], ["gold", "added", "a.jsonl", None]),
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


def sections():
    every = {Section}
    while fresh := {child for parent in every for child in parent.__subclasses__()} - every:
        every |= fresh
    return sorted(every - {Section}, key=lambda section: section.__name__)


@pytest.mark.parametrize(
    "section", [s for s in sections() if s.__module__ == "tasks.config.settings"], ids=lambda s: s.__name__
)
def test_every_section_is_frozen_closed_and_documented(section):
    assert section.model_config["extra"] == "forbid"
    assert section.model_config["frozen"]
    assert section.__doc__
    if section in (Config,):
        return
    undocumented = [name for name, field in section.model_fields.items() if not field.description]
    assert not undocumented


def test_unknown_keys_are_refused_at_every_depth():
    for values in (
        {"pears": {}},
        {"pairs": {"etta": 0.9}},
        {"data": {"prompts": {"path": "p", "spilt": "test"}}},
        {"dpo": {"lora": {"rank": 8}}},
    ):
        good = {"data": {"prompts": "p"}, "sft": {"ready_model": "m"}}
        with pytest.raises(ValidationError) as caught:
            Config.model_validate({**good, **values})
        assert caught.value.errors()[0]["type"] == "extra_forbidden"


def test_a_section_cannot_be_changed():
    with pytest.raises(ValidationError):
        PairsConfig().eta = 0.9


def test_a_string_is_short_for_a_path():
    assert DataConfig(prompts="a.jsonl").prompts == DataSource(path="a.jsonl")
    assert SftConfig(base_model="m").base_model == ModelSource(path="m")


def test_one_model_of_sft():
    for models in ({}, {"base_model": "a", "ready_model": "b"}):
        with pytest.raises(ValidationError, match=r"set one of sft.base_model .* and sft.ready_model"):
            SftConfig(**models)


def test_at_most_one_reward_model():
    RewardModelConfig()
    with pytest.raises(ValidationError, match=r"set at most one of reward_model.base_model and"):
        RewardModelConfig(base_model="a", ready_model="b")


def test_the_papers_settings_are_the_defaults():
    assert (SamplingConfig().k, PairsConfig().tau, PairsConfig().eta, DpoConfig().beta) == (16, 1.0, 0.85, 0.1)
    assert DpoConfig().lora is not None
    assert DpoConfig().lora.r == 8
    assert DpoConfig().batch_size == 64


# Keys


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
        (RewardModelConfig, {"tokens_per_batch": 1}),
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


# The shipped configurations


def test_there_are_configurations():
    assert "stories.yaml" in [path.name for path in CONFIGS]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_are_valid(path, monkeypatch):
    monkeypatch.setenv("RSDPO_TEST_DATA", "/somewhere")
    monkeypatch.setenv("RSDPO_STORE", "s3://somewhere")
    config = load_config(str(path), [])
    assert isinstance(config, BaseModel)
    assert Config.model_validate_json(config.model_dump_json()) == config
