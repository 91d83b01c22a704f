"""Reward heads in float32, whatever the type of the body. Imports torch, so import it inside functions only."""

from types import MethodType
from typing import Any

import torch
from transformers import PreTrainedModel


def head_in_float32(model: PreTrainedModel) -> None:
    """Keep a head's weights in float32, and let it compute so, whatever the type of the model's body.

    In bfloat16 a reward between 8 and 16 moves in steps of 1/16, so that other completions tie. In float32 nothing
    changes.

    Args:
        model: A body and, beside it, a head.
    """
    if model.base_model is model:  # no telling what is the head
        return
    for part in model.children():
        if part is not model.base_model:
            part.float().forward = MethodType(_forward_in_float32, part)


def head_modules(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules that make a reward of the states: all beside the body, and the body's pooler.

    They may be new where a reward model is made of a model of another kind, and are then random.
    """
    beside = [name for name, part in model.named_children() if part is not model.base_model and list(part.parameters())]
    return [*beside, *(name for name, _ in model.base_model.named_children() if name == "pooler")]


def _forward_in_float32(self: torch.nn.Module, states: torch.Tensor, *rest: Any, **options: Any) -> Any:
    with torch.autocast(states.device.type, enabled=False):
        return type(self).forward(self, states.float(), *rest, **options)
