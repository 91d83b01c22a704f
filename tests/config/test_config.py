"""Every bound of every section, what decides a stage's key, and the shipped configurations."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from runs import ROOT

from flows.command_line import explain, load_config
from tasks.config.extra import EVERY_TRAINER, OWN
from tasks.config.sections import DataSource, Function, ModelSource, Section
from tasks.config.settings import (
    DataConfig,
    Decoding,
    EvaluationConfig,
    RewardModelConfig,
    SamplingConfig,
    ScoringConfig,
    SftConfig,
)
from tasks.config.training import DpoConfig, FixedBatches, Lora
from tasks.pipeline.configuration import Config
from tasks.selection.strategies import PairsConfig

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
NAN, INF = math.nan, math.inf
LEAST: dict[type[Section], dict] = {
    DataConfig: {"prompts": "p.jsonl"},
    SftConfig: {"ready_model": "m"},
    Function: {"function": "m:f"},
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


# Batches


def test_a_batch_is_made_of_whole_forward_passes():
    with pytest.raises(ValidationError, match=r"batch_size = 12 must be a multiple of .* = 8"):
        RewardModelConfig(batch_size=12, micro_batch_size=8)
    RewardModelConfig(batch_size=4, micro_batch_size=8)
    RewardModelConfig(batch_size=64, micro_batch_size=8, devices=4)
    DpoConfig(batch_size=13, devices=4)  # made of whole prompts


def optimizer_batch(config: FixedBatches) -> int:
    """Return the examples that an optimizer step really takes."""
    from tasks.training.trainer import fixed_batches

    arguments = fixed_batches(config)
    return arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"] * config.devices


@given(st.integers(1, 40), st.integers(1, 12))
def test_on_one_device_an_optimizer_step_has_batch_size_examples(batch_size, micro_batch_size):
    try:
        config = RewardModelConfig(batch_size=batch_size, micro_batch_size=micro_batch_size)
    except ValidationError:
        return
    assert optimizer_batch(config) == batch_size


@pytest.mark.parametrize(("batch_size", "devices"), [(9, 2), (1, 2), (10, 4)])
def test_on_several_devices_an_optimizer_step_has_batch_size_examples_or_is_refused(batch_size, devices):
    # devices is not in the stage's key, so it must not change what is computed.
    try:
        config = RewardModelConfig(batch_size=batch_size, micro_batch_size=8, devices=devices)
    except ValidationError:
        return
    assert optimizer_batch(config) == batch_size


# Grouped DPO


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"ld_alpha": 0.5}, "ld_alpha cannot be set: it cuts a completion's log-probability at the length of its"),
        ({"sync_ref_model": True}, "sync_ref_model cannot be set: the reference"),
        ({"disable_dropout": False}, "disable_dropout cannot be set: a completion is forwarded once"),
        ({"per_device_train_batch_size": 4}, "set dpo.tokens_per_batch"),
    ],
)
def test_what_grouped_dpo_cannot_do_is_refused_by_name(extra, why):
    with pytest.raises(ValidationError, match=why):
        DpoConfig(extra=extra)
    DpoConfig(extra={"weight_decay": 0.1, "use_weighting": True})


SFT = {"base_model": "a"}
DECIDED = [
    (DpoConfig, {}, "beta", r"dpo.extra.beta cannot be set: set dpo.beta"),
    (DpoConfig, {}, "label_smoothing", r"dpo.extra.label_smoothing cannot be set: set dpo.label_smoothing"),
    (
        DpoConfig,
        {},
        "discopop_tau",
        r"dpo.extra.discopop_tau cannot be set: dpo.loss_type = 'sigmoid' does not read it",
    ),
    (DpoConfig, {}, "padding_free", r"dpo.extra.padding_free cannot be set: "),
    (DpoConfig, {}, "eval_steps", r"dpo.extra.eval_steps cannot be set: nothing here reads it"),
    (DpoConfig, {"loss_type": "bco_pair"}, "f_divergence_type", r"loss_type = 'bco_pair' does not read it; sigmoid, "),
    (SftConfig, SFT, "per_device_train_batch_size", r"set sft.micro_batch_size, and sft.batch_size for the optimizer"),
    (SftConfig, SFT, "learning_rate", r"sft.extra.learning_rate cannot be set: set sft.learning_rate"),
    (
        SftConfig,
        SFT,
        "wieght_decay",
        r"sft.extra.wieght_decay cannot be set: nothing here reads it; check its spelling",
    ),
    (RewardModelConfig, {}, "bf16", r"reward_model.extra.bf16 cannot be set: set reward_model.dtype"),
    (RewardModelConfig, {}, "beta", r"reward_model.extra.beta cannot be set"),
    (RewardModelConfig, {}, "num_train_epochs", r"set reward_model.epochs"),
]


@pytest.mark.parametrize(("section", "fields", "name", "why"), DECIDED)
def test_extra_that_something_else_decides_or_nothing_reads_is_refused_by_name(section, fields, name, why):
    with pytest.raises(ValidationError, match=why):
        section(**fields, extra={name: 1})


def test_what_extra_allows_trl_has():
    import dataclasses

    import trl

    for section, name in (("sft", "SFTConfig"), ("reward_model", "RewardConfig"), ("dpo", "DPOConfig")):
        known = {field.name for field in dataclasses.fields(getattr(trl, name))}
        assert known >= EVERY_TRAINER | OWN[section]
        decided = {"learning_rate", "seed", "max_length", "per_device_train_batch_size", "output_dir", "beta"}
        assert not decided & (EVERY_TRAINER | OWN[section])


def test_numbers_that_yaml_takes_for_text_are_numbers():
    extra = {
        "weight_decay": "1e-2",
        "optim": "adamw_torch",
        "lr_scheduler_kwargs": {"min_lr": "2E-6", "steps": [".5e1"]},
    }
    assert SftConfig(base_model="a", extra=extra).extra == {
        "weight_decay": 0.01,
        "optim": "adamw_torch",
        "lr_scheduler_kwargs": {"min_lr": 2e-6, "steps": [5.0]},
    }


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"label_smoothing": 0.1, "loss_type": "ipo"}, "label_smoothing = 0.1 is read by none of"),
        ({"loss_type": "exo_pair"}, "needs dpo.label_smoothing above 0"),
        ({"label_smoothing": 0.1, "extra": {"use_weighting": True}}, "dpo.extra.use_weighting cannot be set with"),
    ],
)
def test_label_smoothing_is_for_losses_that_read_it(fields, why):
    with pytest.raises(ValidationError, match=why):
        DpoConfig(**fields)


@pytest.mark.parametrize(
    "fields", [{"temperature": 3}, {"temperature": 0.005}, {"stop": [""]}, {"k": 10**6}], ids=lambda fields: str(fields)
)
def test_what_vllm_refuses_or_changes_is_refused(fields):
    with pytest.raises(ValidationError, match=next(iter(fields))):
        SamplingConfig(**fields)


def test_losses_are_added_up():
    assert DpoConfig(loss_type=["sigmoid", "sft"], loss_weights=[1, 0.2]).losses == ("sigmoid", "sft")
    assert DpoConfig().losses == ("sigmoid",)
    with pytest.raises(ValidationError, match="must be one weight a loss"):
        DpoConfig(loss_type=["sigmoid", "sft"], loss_weights=[1])


def test_adapters_for_dpo_have_no_dropout():
    with pytest.raises(ValidationError, match=r"dpo.lora.dropout = 0.1 must be 0"):
        DpoConfig(lora={"r": 8, "dropout": 0.1})
    assert SftConfig(base_model="a", lora={"dropout": 0.1}).lora.dropout == 0.1


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


# Places


@pytest.mark.parametrize(
    "path",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://host/p.jsonl",
        "ftp://host/p.jsonl",
        "ssh://host/p.jsonl",
        "github://main/p.jsonl",
        "simplecache::https://host/p.jsonl",
        "zip://p.jsonl::s3://bucket/p.zip",
        "s3:///p.jsonl",
        "memory://p.jsonl",
    ],
)
def test_nothing_is_fetched_from_elsewhere(path):
    for make_it in (lambda: ModelSource(path=path), lambda: DataConfig(prompts=path)):
        with pytest.raises(ValidationError, match=r"must be a file, a folder, file:///..., s3://bucket/key or a hub"):
            make_it()


# Secrets


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data.prompts", "s3://key:hush@bucket/p.jsonl"),
        ("data.prompts", {"path": "s3://key:hush@bucket/p.jsonl"}),
        ("data.preferences", "https://user:hush@host/p.jsonl"),
        ("sft.base_model", "s3://key:hush@bucket/m"),
        ("reward_model.ready_model.path", "https://hush@host/m"),
        ("store", "s3://key:hush@bucket/prefix"),
        ("sft.extra.hub_token", "hush"),
        ("sft.extra.push_to_hub_token", "hush"),
        ("dpo.extra.model_init_kwargs.token", "hush"),
        ("reward_model.extra.HF_TOKEN", "hush"),
        ("evaluation.gold_reward.options.api_key", "hush"),
        ("evaluation.gold_reward.options.openai_api_key", "hush"),
        ("evaluation.gold_reward.options.apikey", "hush"),
        ("evaluation.gold_reward.options.AWS_SECRET_ACCESS_KEY", "hush"),
        ("evaluation.gold_reward.options.aws_access_key_id", "hush"),
        ("evaluation.gold_reward.options.db_password", "hush"),
        ("evaluation.gold_reward.options.client_secret", ["hush"]),
        ("evaluation.gold_reward.options.judges", [{"url": "https://host/v1", "access_token": "hush"}]),
        ("evaluation.gold_reward.options.url", "simplecache::https://user:hush@host/words.txt"),
    ],
)
def test_secrets_are_refused_and_not_repeated(name, value):
    values = {"data": {"prompts": "p"}, "sft": {}, "evaluation": {"gold_reward": {"function": "m:f"}}}
    *places, last = name.split(".")
    section = values
    for place in places:
        section = section.setdefault(place, {})
    section[last] = value
    with pytest.raises(ValidationError, match=r"Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY .*HF_TOKEN") as caught:
        Config.model_validate(values)
    assert [".".join(map(str, error["loc"])).startswith(name) for error in caught.value.errors()] == [True]
    assert "hush" not in str(caught.value) + explain(caught.value) + repr(caught.value.errors())


def test_a_section_alone_takes_no_secret_either():
    for make_it in (
        lambda: ModelSource(path="s3://key:hush@bucket/m"),
        lambda: DataConfig(prompts="s3://key:hush@bucket/p"),
        lambda: DpoConfig(extra={"hub_token": "hush"}),
    ):
        with pytest.raises(ValidationError, match="a secret must not be here") as caught:
            make_it()
        assert "hush" not in str(caught.value)


def test_what_only_looks_like_a_secret_is_taken():
    names = ("pad_token", "eos_token", "max_tokens", "tokenizer", "token_ids", "key", "num_tokens", "tokens_per_batch")
    Function(function="a:b", options=dict.fromkeys(names, "x") | {"hub_token": None, "use_auth_token": False})
    for path in ("org/name", "s3://bucket/a@b/p.jsonl", "file:///home/a@b/p.jsonl", "me@home/p.jsonl"):
        DataConfig(prompts=path, system_prompt="Write to me@host or see https://host/@me.")


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
