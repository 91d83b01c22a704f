"""Our losses of pairs by a plain forward pass of each completion, and as the stage sets its trainer up for them."""

import functools
import math
from typing import Any

import pytest
import torch
from pairwise import ALL_AT_ONCE, THREE, arguments, grouped
from random_groups import neox
from transformers import PreTrainedModel

from tasks.config.losses import needs_reference
from tasks.config.training import DpoConfig
from tasks.training.dpo_setup import mean_scale, own_loss, split_losses, weighed
from tasks.training.packs import DpoExample, Limits
from tasks.training.pair_values import PairValues

GAPS = [[0.5, 2.0, 1.5, 3.0], [0.2], [1.1]]
SCORED = [example._replace(reward_gaps=gaps) for example, gaps in zip(THREE, GAPS, strict=True)]
PACKINGS = {
    "at once": ALL_AT_ONCE,
    "in packs": ALL_AT_ONCE._replace(tokens=25),
    "pair by pair": ALL_AT_ONCE._replace(tokens=1, shared=False),
    "for two devices": ALL_AT_ONCE._replace(devices=2),
}


def logps_of(model: PreTrainedModel, example: DpoExample, place: int) -> torch.Tensor:
    """Return log pi(y|x), by a forward pass of prompt and completion alone."""
    prompt, completion = list(example.prompt), list(example.completions[place])
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(completion)[:, None]).sum()


def plain_values(model: PreTrainedModel, own: list[DpoExample], config: DpoConfig) -> PairValues:
    """Return the values of all pairs, each forwarded by itself."""
    pairs = [
        (example, sides, gap, 1 / len(example.chosen))
        for example in own
        for sides, gap in zip(
            zip(example.chosen, example.rejected, strict=True), example.reward_gaps or example.chosen, strict=True
        )
    ]
    by_prompt = torch.tensor([weight for *_, weight in pairs]) if config.weight_pairs == "prompt" else None
    return PairValues(
        beta=config.beta,
        logps=torch.stack([torch.stack([logps_of(model, e, s[side]) for e, s, *_ in pairs]) for side in (0, 1)]),
        ref_logps=torch.tensor(
            [[e.ref_logps[s[side]] if e.ref_logps else math.nan for e, s, *_ in pairs] for side in (0, 1)]
        ),
        lengths=torch.tensor([[len(e.completions[s[side]]) for e, s, *_ in pairs] for side in (0, 1)]),
        shares=torch.full((2, len(pairs)), math.nan),
        reference_reward=torch.tensor(math.nan),
        reward_gaps=torch.tensor([gap for *_, gap, _ in pairs]),
        weights=torch.ones(len(pairs)) if by_prompt is None else by_prompt / by_prompt.mean(),
    )


def plain_gradient(own: list[DpoExample], config: DpoConfig) -> tuple[torch.Tensor, float]:
    """Return gradient and value of the sum of our own losses."""
    model = neox().train()
    values = plain_values(model, own, config)
    loss = sum(values.mean(own_loss(name, config)(values)) for name in config.losses)
    loss.backward()
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()]
    ), loss.item()


def ours(folder, own: list[DpoExample], limits: Limits, config: DpoConfig, **more: Any):
    """Return our trainer, set up as the stage does, and its packs."""
    losses, theirs = split_losses(config)
    names = [name for name, _ in theirs] or ["sigmoid" if needs_reference(config.losses) else "sft"]
    args = arguments(folder, loss_type=names, loss_weights=[w for _, w in theirs] or [0.0], beta=config.beta, **more)
    weigh = functools.partial(weighed, config=config)
    more = {"own_losses": losses, "mean_scale": mean_scale(config)}
    trainer, packs = grouped(neox(), own, limits, args, weigh=weigh, **more)
    if "unrelated" in packs[0]:
        trainer.measure_reference(packs)
    return trainer, packs


def assert_same(found: tuple[torch.Tensor, float], expected: tuple[torch.Tensor, float]) -> None:
    assert float((found[0] - expected[0]).norm() / expected[0].norm()) < 2e-5
    assert found[1] == pytest.approx(expected[1], rel=2e-5)
