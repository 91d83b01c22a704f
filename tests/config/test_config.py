"""Sections of a configuration: closed, frozen, documented; batches; the configurations that are shipped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from runs import ROOT

from flows.command_line import load_config
from tasks.config.sections import DataSource, ModelSource, Section
from tasks.config.settings import DataConfig, RewardModelConfig, SamplingConfig, SftConfig
from tasks.config.training import DpoConfig, FixedBatches
from tasks.pipeline.configuration import Config
from tasks.selection.strategies import PairsConfig

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


# Bounds: values just outside, and the ones on the bound that are allowed.


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
