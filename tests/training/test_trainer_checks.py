"""What TRL, transformers, peft and vLLM refuse is refused at once, by name, and asking them changes nothing."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch
import trl
from accelerate.state import AcceleratorState, PartialState
from pydantic import ValidationError
from transformers import GPTNeoXConfig

from tasks.config import extra
from tasks.config.compute import ComputeConfig
from tasks.config.errors import ConfigurationError
from tasks.config.losses import SMOOTHED_LOSSES, TRL_LOSSES
from tasks.config.settings import ENGINE_ARGUMENTS, RewardModelConfig, SamplingConfig, SftConfig
from tasks.config.training import DpoConfig, Lora
from tasks.store.artifacts import Artifact
from tasks.training import checks as trainer_checks
from tasks.training.checks import CLASSES, check_adapters, check_machine, check_trainer_arguments, check_trainings

MODEL = Artifact(kind="model", uri="file:///anywhere", digest="1" * 64)


@pytest.mark.parametrize("section", [SftConfig(base_model="m"), RewardModelConfig(), DpoConfig()])
def test_asking_leaves_the_process_as_it_was(section):
    before, states = dict(os.environ), (dict(PartialState._shared_state), dict(AcceleratorState._shared_state))
    given = {"fsdp": "full_shard auto_wrap", "fsdp_config": {"version": 2}, "weight_decay": 0.1}
    check_trainer_arguments(section.model_copy(update={"extra": given, "dtype": "bfloat16"}))
    assert dict(os.environ) == before
    assert (dict(PartialState._shared_state), dict(AcceleratorState._shared_state)) == states


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight_decay": "0.1"}, r"dpo.extra.weight_decay = '0.1' must be a number: take the quotes away"),
        ({"weight_decay": float("nan")}, "dpo.extra.weight_decay = nan: .*finite"),
        ({"weight_decay": -1}, r"dpo.extra = {'weight_decay': -1} .*must be at least 0"),
        ({"max_grad_norm": True}, r"dpo.extra.max_grad_norm = True must be of the type float"),
        ({"dataloader_num_workers": 2.0}, "dpo.extra.dataloader_num_workers = 2.0 must be of the type int"),
        ({"adam_beta1": 1.5}, r"dpo.extra = {'adam_beta1': 1.5} .*Invalid beta parameter"),
        ({"torch_empty_cache_steps": 0}, "torch_empty_cache_steps"),
        ({"lr_scheduler_kwargs": {"bogus": 1}}, "dpo.extra = {'lr_scheduler_kwargs': {'bogus': 1}}"),
    ],
)
def test_what_the_trainer_would_refuse_is_refused_by_name(given, message):
    with pytest.raises(ConfigurationError, match=message):
        check_trainer_arguments(DpoConfig(extra=given))


def test_what_the_trainer_takes_is_taken():
    given = {"weight_decay": 1e-2, "lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "optim": "adafactor"}
    check_trainer_arguments(DpoConfig(scheduler="cosine_with_min_lr", extra=given))
    check_trainer_arguments(RewardModelConfig(extra={"optim": "adamw_bnb_8bit"}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU trains in float16")
def test_half_precision_where_there_is_no_gpu():
    half = SftConfig(base_model="m", dtype="float16")
    with pytest.raises(ConfigurationError, match=r"sft.dtype = float16 trains on GPUs only"):
        check_trainings(ComputeConfig(), (half, MODEL))
    check_trainings(ComputeConfig(train_sft="train-sft/gpu"), (half, MODEL))  # the worker may have one
    check_trainings(ComputeConfig(), (SftConfig(ready_model="m", dtype="float16"), MODEL))


def test_reports_to_what_is_not_there():
    with pytest.raises(ConfigurationError, match=r"dpo.extra.report_to = 'abacus' is no tracker"):
        check_machine(DpoConfig(extra={"report_to": ["none", "abacus"]}))
    check_machine(DpoConfig(extra={"report_to": "none"}))


# Adapters


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Let the model be a configuration alone."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    GPTNeoXConfig(**sizes, num_attention_heads=4).save_pretrained(tmp_path)
    monkeypatch.setattr(trainer_checks, "model_folder", lambda model, weights: tmp_path)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["query_key_value", "q_proj"], "dpo.lora.target_modules: the model has no module 'q_proj', but .*query_key_v"),
        (".*attn.*", "dpo.lora.target_modules = '.*attn.*': Target modules .* not found"),
        ([".act"], "dpo.lora.target_modules: the model has no module"),
        (["act"], r"dpo.lora.target_modules = \['act'\]: Target module .* is not supported"),
        (["query_key_value", "lm_head"], "takes in the head"),
    ],
)
def test_adapters_must_fit_the_model(tiny, modules, message):
    with pytest.raises(ConfigurationError, match=message):
        check_adapters(DpoConfig(lora=Lora(target_modules=modules)), MODEL)


def test_adapters_that_fit(tiny):
    for lora in (None, Lora(), Lora(target_modules=["query_key_value"]), Lora(target_modules=r".*\.dense")):
        check_adapters(DpoConfig(lora=lora), MODEL)
        check_adapters(RewardModelConfig(lora=lora), MODEL)


# What `extra` may hold


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"extra": {"discopop_tau": 0.1}}, "discopop do"),
        ({"loss_type": "sft", "extra": {"f_divergence_type": "js_divergence"}}, "'sft' does not read it"),
        (
            {"loss_type": ("sigmoid", "nca_pair"), "extra": {"f_divergence_type": "forward_kl"}},
            "no meaning .*'nca_pair'",
        ),
        ({"extra": {"f_divergence_type": "chi"}}, "'chi' must be one of reverse_kl"),
        ({"extra": {"f_alpha_divergence_coef": 0.5}}, "does nothing without dpo.extra.f_divergence_type"),
        ({"loss_type": ("sigmoid", "sft"), "extra": {"use_weighting": True}}, "no meaning for dpo.loss_type = 'sft'"),
        ({"extra": {"gradient_checkpointing_kwargs": {}}}, "nothing without dpo.extra.gradient_checkpointing"),
        ({"extra": {"run_name": "one", "report_to": "none"}}, "nothing without dpo.extra.report_to"),
        ({"extra": {"data_seed": 1}}, "set dpo.seed"),
        ({"extra": {"accelerator_config": {"split_batches": True}}}, "how batches are cut"),
    ],
)
def test_arguments_that_would_do_nothing_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        DpoConfig(**fields)


def test_arguments_that_do_something_are_taken():
    DpoConfig(loss_type=("ipo", "sft"), extra={"f_divergence_type": "js_divergence"})
    DpoConfig(extra={"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3})
    DpoConfig(loss_type=("ipo", "apo_zero"), extra={"use_weighting": True})
    for make in (DpoConfig, RewardModelConfig):
        make(extra={"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}})
        make(extra={"report_to": "tensorboard", "run_name": "one", "fsdp": True, "fsdp_config": {"version": 2}})


def test_what_needs_another_is_trls():
    known = set().union(*({f.name for f in dataclasses.fields(getattr(trl, kind))} for kind in CLASSES.values()))
    assert extra.NEEDS.keys() | set(extra.NEEDS.values()) <= known


def test_the_losses_that_read_an_argument_are_those_of_trls_code():
    # TRL names each loss once in its code; what stands between two names is the loss.
    source = (Path(trl.__file__).parent / "trainer/dpo_trainer.py").read_text()
    start, end = "for loss_type, loss_weight in zip(", "if self.use_weighting:\n                # Eq"
    pieces = source[source.index(start) : source.index(end)].split('loss_type == "')[1:]
    code = {piece.partition('"')[0]: piece for piece in pieces}
    assert set(TRL_LOSSES) <= set(code)

    def readers(*words: str) -> set[str]:
        return {name for name in TRL_LOSSES if any(word in code[name] for word in words)}

    assert readers("self.label_smoothing") == set(SMOOTHED_LOSSES) - {"sigmoid"}
    assert readers("discopop_tau") == set(extra.READ_BY["discopop_tau"])
    assert readers("delta_score", "chosen_scores") == set(extra.READ_BY["f_divergence_type"])


# vLLM


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_num_seqs": 0}, "sampling.extra.max_num_seqs = 0: .*greater than 0"),
        ({"max_num_seqs": "8"}, "sampling.extra.max_num_seqs = '8': .*valid integer"),
        ({"max_num_seqs": True}, "sampling.extra.max_num_seqs = True"),
        ({"gpu_memory_utilization": 1.1}, "sampling.extra.gpu_memory_utilization = 1.1: .*less than or equal to 1"),
        ({"enforce_eager": "yes"}, "sampling.extra.enforce_eager = 'yes'"),
        ({"swap_space": 2}, "sampling.extra.swap_space is not among"),
    ],
)
def test_engine_arguments_have_types(given, message):
    with pytest.raises(ValidationError, match=message):
        SamplingConfig(extra=given)


def test_engine_arguments_go_with_vllm():
    with pytest.raises(ValidationError, match=r"sampling.extra.enforce_eager is read by vLLM alone"):
        SamplingConfig(extra={"max_num_seqs": 2, "enforce_eager": True}, engine="transformers")
    assert SamplingConfig(extra={"max_num_seqs": 2}, engine="vllm").extra == {"max_num_seqs": 2}


def test_engine_arguments_are_vllms():
    vllm = pytest.importorskip("vllm")
    assert ENGINE_ARGUMENTS.keys() <= set(vllm.EngineArgs.__dataclass_fields__)
    taken = SamplingConfig(extra={"max_num_seqs": "1e1", "gpu_memory_utilization": 1, "enforce_eager": True}).extra
    assert (taken["max_num_seqs"], type(taken["max_num_seqs"])) == (10, int)


def test_vllm_takes_what_the_bounds_let_through_and_refuses_what_is_beyond():
    vllm = pytest.importorskip("vllm")
    from vllm.exceptions import VLLMValidationError

    def parameters(**fields):
        return vllm.SamplingParams(**{"n": 1, "max_tokens": 1, "seed": 0, **fields})

    for fields in ({"temperature": 2.0}, {"temperature": 0.01}, {"n": 16384}, {"stop": ["a"]}, {"top_k": 0}):
        made = parameters(**fields)
        assert all(getattr(made, name) == value for name, value in fields.items())
    for fields in ({"temperature": 2.001}, {"n": 16385}, {"stop": [""]}, {"top_p": 0.0}):
        with pytest.raises(VLLMValidationError, match=next(iter(fields))):
            parameters(**fields)
    assert parameters(temperature=0.001).temperature == 0.01
