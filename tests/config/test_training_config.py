"""The sections of trained stages: batches, what `extra` may pass, losses, adapters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.config.extra import EVERY_TRAINER, OWN
from tasks.config.losses import needs_reference
from tasks.config.rloo import RlooConfig
from tasks.config.settings import (
    RewardModelConfig,
    SamplingConfig,
    SftConfig,
)
from tasks.config.training import DpoConfig, FixedBatches

# Batches


def test_a_batch_is_made_of_whole_forward_passes():
    with pytest.raises(ValidationError, match=r"batch_size = 12 must be a multiple of .* = 8"):
        RlooConfig(batch_size=12, micro_batch_size=8)
    RlooConfig(batch_size=4, micro_batch_size=8)
    RlooConfig(batch_size=64, micro_batch_size=8, devices=4)
    DpoConfig(batch_size=13, devices=4)  # made of whole prompts


def optimizer_batch(config: FixedBatches) -> int:
    """Return the examples that an optimizer step really takes."""
    from tasks.training.trainer import fixed_batches

    arguments = fixed_batches(config)
    return arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"] * config.devices


@given(st.integers(1, 40), st.integers(1, 12))
def test_on_one_device_an_optimizer_step_has_batch_size_examples(batch_size, micro_batch_size):
    try:
        config = RlooConfig(k=2, batch_size=batch_size, micro_batch_size=micro_batch_size)
    except ValidationError:
        return
    assert optimizer_batch(config) == batch_size


@pytest.mark.parametrize(("batch_size", "devices"), [(9, 2), (1, 2), (10, 4)])
def test_on_several_devices_an_optimizer_step_has_batch_size_examples_or_is_refused(batch_size, devices):
    # devices is not in the stage's key, so it must not change what is computed.
    try:
        config = RlooConfig(k=2, batch_size=batch_size, micro_batch_size=8, devices=devices)
    except ValidationError:
        return
    assert optimizer_batch(config) == batch_size


@pytest.mark.parametrize("section", [SftConfig, RewardModelConfig])
def test_fixed_batches_are_refused_with_what_replaces_them(section):
    name = section.section
    with pytest.raises(ValidationError, match=rf"{name}.micro_batch_size = 4 is no setting .* {name}.tokens_per_batch"):
        section(micro_batch_size=4)


# Losses of reward models


def test_a_margin_has_two_names_and_one_key():
    old, new = RewardModelConfig(use_margin=True), RewardModelConfig(loss="margin")
    assert old == new
    assert old.key_fields() == new.key_fields() == {"use_margin": True}  # as stores have it
    assert RewardModelConfig().key_fields() == {}
    with pytest.raises(ValidationError, match="use_margin is another name of the loss margin"):
        RewardModelConfig(use_margin=True, loss="centred")


def test_what_no_loss_of_a_reward_model_reads_is_refused():
    with pytest.raises(ValidationError, match=r"reward_model.loss = 'hinge' must be one of bradley_terry, margin"):
        RewardModelConfig(loss="hinge")
    with pytest.raises(ValidationError, match=r"centring_coefficient = 0.1 is not read by .* take the loss centred"):
        RewardModelConfig(centring_coefficient=0.1)
    with pytest.raises(ValidationError, match=r"set reward_model.loss to centred"):
        RewardModelConfig(extra={"center_rewards_coefficient": 0.01})


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
    (SftConfig, SFT, "per_device_train_batch_size", r"set sft.tokens_per_batch, and sft.batch_size for the optimizer"),
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


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (
            {"simpo_gamma": 0.5},
            r"dpo.simpo_gamma = 0.5 is read by none of \('sigmoid',\): leave it at 1.0, .* simpo",
        ),
        (
            {"loss_type": "simpo", "rpo_distance": "squared"},
            "rpo_distance = squared is read by none .* take .* rpo",
        ),
        (
            {"loss_type": ["simpo", "orpo"], "beta": 0.2},
            r"dpo.beta = 0.2 is read by none of .* have no reference",
        ),
        (
            {"weight_pairs": "prompt", "loss_type": ["ipo", "sft"]},
            "weight_pairs = prompt cannot .* sft_sequence",
        ),
        ({"weight_pairs": "prompt", "loss_type": "kto"}, "loss_type = 'kto', a mean over completions"),
        ({"kto_desirable_weight": 2}, "kto_desirable_weight = 2.0 is read by none of .* take .* kto"),
        ({"loss_type": "simpo", "extra": {"f_divergence_type": "js_divergence"}}, "loss_type = 'simpo' does not read"),
        ({"loss_type": ["ipo", "odpo"], "extra": {"use_weighting": True}}, "no meaning for dpo.loss_type = 'odpo'"),
        ({"loss_type": "hinge", "extra": {"use_weighting": True}}, "no meaning for dpo.loss_type = 'hinge'"),
    ],
)
def test_what_no_loss_reads_is_refused(fields, why):
    with pytest.raises(ValidationError, match=why):
        DpoConfig(**fields)


def test_what_a_loss_reads_is_taken():
    DpoConfig(loss_type=["simpo", "sigmoid"], beta=0.2, simpo_beta=3.0, weight_pairs="prompt")
    DpoConfig(loss_type="rebel", beta=0.01)
    DpoConfig(loss_type="sft", beta=0.2)  # its record has log-ratios


def test_which_losses_have_a_reference():
    free = ["simpo", "orpo", "sft_sequence", ("simpo", "sft"), ("orpo", "simpo")]
    assert [needs_reference(DpoConfig(loss_type=names).losses) for names in free] == [False] * len(free)
    others = ["sigmoid", "sft", "odpo", "rpo", "rebel", ("simpo", "ipo"), ("sft_sequence", "rebel")]
    assert [needs_reference(DpoConfig(loss_type=names).losses) for names in others] == [True] * len(others)


def test_a_loss_of_ours_counts_in_the_key_with_what_differs():
    assert DpoConfig(loss_type="simpo", simpo_beta=2, simpo_gamma=0.5).key_fields() == {
        "loss_type": "simpo",
        "simpo_gamma": 0.5,
    }


def test_adapters_for_dpo_have_no_dropout():
    with pytest.raises(ValidationError, match=r"dpo.lora.dropout = 0.1 must be 0"):
        DpoConfig(lora={"r": 8, "dropout": 0.1})
    assert SftConfig(base_model="a", lora={"dropout": 0.1}).lora.dropout == 0.1
