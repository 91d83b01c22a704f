"""Optimizer steps of examples, and the passes in which a step's examples go through the model.

A step takes its examples in the order in which transformers' trainer shuffles them. Within a step, examples of like
length go together, as many as a budget of tokens allows: the step's gradient is a sum over its examples, however they
are put together. Imports torch inside functions only.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np


def draw_steps(examples: int, batch_size: int, epochs: float, max_steps: int | None, seed: int) -> list[np.ndarray]:
    """Return the examples of each optimizer step: every epoch takes each once, in the order that TRL's trainers take.

    The last step of an epoch takes what is left.

    Args:
        examples: How many there are.
        batch_size: Examples a step.
        epochs: Passes over the examples; the last may be partial.
        max_steps: Steps; overrides `epochs`.
        seed: Of the orders.
    """
    import torch

    count = max_steps or math.ceil(epochs * math.ceil(examples / batch_size))
    steps: list[np.ndarray] = []
    for epoch in itertools.count():
        generator = torch.Generator().manual_seed(seed + epoch)  # as accelerate's SeedableRandomSampler
        order = torch.randperm(examples, generator=generator).numpy()
        steps += np.split(order, range(batch_size, examples, batch_size))
        if len(steps) >= count:
            break
    return steps[:count]


def like_lengths(tokens: Sequence[int], budget: int, least_fill: float) -> list[list[int]]:
    """Return the indices of examples in passes, longest first.

    Args:
        tokens: Of each example.
        budget: Most tokens of a pass, all of its examples counted as long as its longest; a single one may have more.
        least_fill: Share of the longest example's tokens that each other one of its pass has at least.
    """
    passes: list[list[int]] = []
    longest = 0
    for i in sorted(range(len(tokens)), key=lambda i: (-tokens[i], i)):
        if passes and (len(passes[-1]) + 1) * longest <= budget and tokens[i] >= least_fill * longest:
            passes[-1].append(i)
        else:
            passes.append([i])
            longest = tokens[i]
    return passes


def deal(passes: Sequence[list[int]], devices: int) -> list[list[list[int]]]:
    """Return each device's passes, equally many: some are cut in two, or are empty where too few examples are left."""
    passes = list(passes)
    while len(passes) % devices and len(most := max(passes, key=len)) > 1:
        place, middle = passes.index(most), len(most) // 2
        passes[place : place + 1] = [most[:middle], most[middle:]]
    passes += [[] for _ in range(-len(passes) % devices)]
    return [passes[device::devices] for device in range(devices)]
