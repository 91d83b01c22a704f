"""Models that run out of memory above some size, as a GPU does: forward, or amid the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


def out_of_memory() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@contextmanager
def holds(model: PreTrainedModel, most: int, backward: bool = False) -> Iterator[list[int]]:
    """Let a model hold so many numbers of token ids at once; yield the sizes of the calls that fit.

    Args:
        model: Its embeddings are what runs out: the first part of a forward pass, and the last of a backward pass, when
            all other weights have their gradients already.
        most: Rows times tokens of a call.
        backward: Run out in the backward pass instead of the forward pass.
    """
    fit: list[int] = []

    def check(module: torch.nn.Module, given: tuple[torch.Tensor, ...], found: torch.Tensor) -> None:
        size = given[0].numel()
        if size <= most:
            fit.append(size)
        elif not backward:
            raise out_of_memory()
        elif found.requires_grad:
            found.register_hook(fail)

    def fail(gradient: torch.Tensor) -> None:
        raise out_of_memory()

    hook = model.get_input_embeddings().register_forward_hook(check)
    try:
        yield fit
    finally:
        hook.remove()
