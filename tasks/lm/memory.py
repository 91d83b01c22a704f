"""A device's memory: what is done where it runs out, and how it is given back.

Imports torch inside functions only, so that what decorates itself with `frees_memory` stays light.
"""

import functools
import gc
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
G = TypeVar("G")


def unless_out_of_memory(compute: Callable[[G], T], given: G) -> T | None:
    """Return what is computed; None, with nothing left that holds memory, where there is too little."""
    import torch

    try:
        return compute(given)
    except torch.OutOfMemoryError:
        return None  # with the error go the frames that hold its tensors


def free_memory() -> None:
    """Give back what no model uses any more, to this process and to others on the same device.

    A model whose methods were replaced refers to itself, so that it stays until cycles are looked for; and torch keeps
    freed memory of a GPU for later, where neither vLLM's process nor a training's can have it.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def frees_memory(function: Callable[P, T]) -> Callable[P, T]:
    """Free the memory once a function that loads models has ended, and its models with it."""

    @functools.wraps(function)
    def free_afterwards(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        finally:
            free_memory()

    return free_afterwards
