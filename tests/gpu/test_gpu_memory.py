"""A GPU whose memory runs out for real: scoring, log-probabilities and DPO go on in smaller batches."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from gpu_chain import random_llama, random_texts
from transformers import LlamaForSequenceClassification

from tasks.config.errors import ConfigurationError
from tasks.lm.memory import free_memory
from tasks.rewards.model import CompletionRewards
from tasks.training.packs import DpoExample, Limits

pytestmark = pytest.mark.gpu

PROMPTS, K, LENGTH = 8, 16, 500


@contextmanager
def room(card: Any, gigabytes: float) -> Iterator[None]:
    """Let this process take so much memory more than it holds now."""
    free_memory()
    total = card.get_device_properties(0).total_memory
    card.set_per_process_memory_fraction(min(1.0, (card.memory_allocated() + gigabytes * 1e9) / total))
    try:
        yield
    finally:
        card.set_per_process_memory_fraction(1.0)


def test_scoring_halves_its_budget(card: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = random_llama(LlamaForSequenceClassification, num_labels=1).bfloat16()
    torch.nn.init.normal_(model.score.weight, std=512**-0.5)
    model, texts = model.cuda(), random_texts(PROMPTS, K, LENGTH)
    expected = CompletionRewards(model, 4096)(*texts)
    rewards = CompletionRewards(model, 1 << 20)
    with room(card, 0.3):
        found = rewards(*texts)
    assert "out of memory at " in capsys.readouterr().out
    assert rewards.budget.tokens < 1 << 19
    assert np.abs(found - expected).max() < 0.25 * expected.std()


def test_log_probabilities_halve_their_budget(card: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trl", reason="trl is not installed: no log-probabilities")
    from tasks.lm.logps import CompletionLogps

    texts = random_texts(PROMPTS, K, LENGTH)
    expected = CompletionLogps(random_llama().cuda(), 4096)(*texts)
    logps = CompletionLogps(random_llama().cuda(), 1 << 20)
    with room(card, 0.5):
        found = logps(*texts)
    assert "out of memory at " in capsys.readouterr().out
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_one_completion_that_does_not_fit_is_named(card: Any) -> None:
    model = random_llama(LlamaForSequenceClassification, num_labels=1).cuda()
    rewards = CompletionRewards(model, 1 << 20)
    with room(card, 0.004), pytest.raises(ConfigurationError, match="need more memory than cuda:0 has free"):
        rewards(*random_texts(1, 1, 2000))


def test_dpo_goes_on_in_smaller_packs(card: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """All pairs are one pack: forward and backward run out, and the weights are those of an epoch that did not."""
    pytest.importorskip("trl", reason="trl is not installed: no training runs")
    whole, budget = trained(tmp_path)
    assert "out of memory" not in capsys.readouterr().out
    with room(card, 3.0):
        parts, lowered = trained(tmp_path)
    assert "out of memory at a pack of " in capsys.readouterr().out
    assert lowered < budget
    start = torch.cat([p.flatten() for p in random_llama().parameters()])
    assert float((parts - whole).norm() / (whole - start).norm()) < 1e-3


def trained(folder: Any) -> tuple[torch.Tensor, int]:
    """Return the weights after a step on 12 pairs of some 12,000 tokens, and the tokens of a pack found to fit."""
    from pairwise import arguments, grouped

    prompts, completions, of = random_texts(4, 8, 600)
    own = []
    for number, prompt in enumerate(prompts):
        drawn = [ids for ids, i in zip(completions, of, strict=True) if i == number]
        own.append(DpoExample(prompt, drawn, [-9.0 * len(ids) for ids in drawn], [0, 1, 2], [5, 6, 7]))
    # As long a step as clipped gradients give: of a short one, rounding would leave too little to compare.
    rate = {"learning_rate": 1.0, "lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 1.0}
    trainer, _ = grouped(random_llama(), own, Limits(12, 10**9, 1, True), arguments(folder, use_cpu=False, **rate))
    trainer.train()
    weights = torch.cat([p.detach().flatten().cpu() for p in trainer.model.parameters()])
    tokens = trainer.step.packs.tokens
    del trainer
    gc.collect()
    return weights, tokens
