"""Numbers of a GPU: those of the CPU in float32, near them in bfloat16, and in the types that settings ask for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_chain import Inputs, random_llama, random_texts
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from tasks.config.training import DpoConfig, Lora
from tasks.lm.sharing import why_not_shared
from tasks.models.loading import device

trl = pytest.importorskip("trl", reason="trl is not installed: no training runs, no log-probabilities")

from accelerate.utils import send_to_device  # noqa: E402 - and what imports TRL
from pairwise import ALL_AT_ONCE, THREE, arguments, gradient, grouped, pairwise  # noqa: E402
from random_groups import VOCABULARY, neox  # noqa: E402
from trainings import STEPS, losses  # noqa: E402
from trainings import train as train_stage  # noqa: E402

from tasks.lm.logps import CompletionDivergence, CompletionLogps  # noqa: E402
from tasks.store.folders import Store  # noqa: E402
from tasks.training.saving import weight_dtype  # noqa: E402
from tasks.training.trainer import lora_config  # noqa: E402

pytestmark = pytest.mark.gpu

TEXTS = random_texts(2, 4, 60)
PADDED = [*THREE, THREE[2]._replace(prompt=[9, 8, 7, 6])]
"""With a prompt that is computed with another one of six tokens, padded on the left: a row of which all is masked."""


def test_log_probabilities_are_those_of_the_cpu() -> None:
    expected = CompletionLogps(random_llama(layers=2))(*TEXTS)
    np.testing.assert_allclose(CompletionLogps(random_llama(layers=2).to(device()))(*TEXTS), expected, rtol=1e-4)
    half = CompletionLogps(random_llama(layers=2).to(device()), autocast=torch.bfloat16)(*TEXTS)
    np.testing.assert_allclose(half, expected, rtol=0.01)
    assert (half != expected).all()


def test_the_divergence_of_a_model_from_itself_is_nothing() -> None:
    kl = CompletionDivergence(random_llama(layers=2).to(device()), random_llama(layers=2).to(device()))(*TEXTS)
    assert kl.max() < 1e-3


def llama() -> PreTrainedModel:
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_prompts_are_shared(dtype: torch.dtype) -> None:
    assert why_not_shared(random_llama(layers=2).to(device(), dtype)) is None


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
def test_the_gradient_is_that_of_trl(tmp_path: Path, bf16: bool) -> None:
    on_cpu = device() == "cpu"
    found = []
    for make in (
        lambda args: grouped(llama(), PADDED, ALL_AT_ONCE, args),
        lambda args: pairwise(llama(), PADDED, args),
    ):
        trainer, batches = make(arguments(tmp_path, use_cpu=on_cpu))
        batches = [send_to_device(batch, trainer.accelerator.device) for batch in batches]
        with torch.autocast(trainer.accelerator.device.type, torch.bfloat16, enabled=bf16):
            found.append(gradient(trainer, batches))
    (ours, loss), (theirs, other) = found
    assert ours.device.type == torch.device(device()).type
    assert float((ours - theirs).norm() / theirs.norm()) < (0.05 if bf16 else 1e-4)
    assert loss == pytest.approx(other, rel=0.02 if bf16 else 1e-4)


def test_adapters_are_trained_in_float32_over_frozen_bfloat16(tmp_path: Path, needs: Callable) -> None:
    needs("peft")
    config = DpoConfig(dtype="bfloat16", lora=Lora(r=2))
    args = arguments(tmp_path, use_cpu=device() == "cpu", bf16=True, learning_rate=1e-2)
    model = neox().to(weight_dtype(config))
    trainer, _ = grouped(model, THREE, ALL_AT_ONCE, args, peft_config=lora_config(config.lora, "CAUSAL_LM"))
    weights = dict(trainer.model.named_parameters())
    trained, frozen = ({n: w for n, w in weights.items() if w.requires_grad is own} for own in (True, False))
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert {weight.dtype for weight in frozen.values()} == {torch.bfloat16}
    before = {name: weight.detach().cpu().clone() for name, weight in weights.items()}
    trainer.train()
    changed = {name for name, weight in weights.items() if not torch.equal(before[name], weight.detach().cpu())}
    assert changed
    assert changed <= trained.keys()


def test_float16_scales_its_loss(inputs: Inputs, tmp_path: Path, card: Any) -> None:
    model = train_stage("dpo", Store(str(tmp_path)), inputs.base_model, dtype="float16", lora=None)
    assert len(losses(model)) == STEPS
    assert np.isfinite([loss for _, loss in losses(model)]).all()


@pytest.mark.parametrize("stage", ["sft", "reward_model", "dpo"])
def test_two_trainings_are_alike(inputs: Inputs, tmp_path: Path, stage: str) -> None:
    """Whether they are equal to the last bit is up to the kernels, and is printed."""
    models = [train_stage(stage, Store(str(tmp_path / name)), inputs.base_model) for name in ("one", "two")]
    print(f"{stage}: two trainings on {device()} are equal to the last bit: {models[0].digest == models[1].digest}")
    one, two = (np.array([loss for _, loss in losses(model)]) for model in models)
    np.testing.assert_allclose(one, two, rtol=1e-2)
