"""Sampling in which every row of a batch has a seed of its own, for transformers' `generate`."""

from collections.abc import Sequence
from typing import Any

from tasks.config.settings import Decoding


def seeded_sampling(decoding: Decoding, seeds: Sequence[int], device: Any) -> list[Any]:
    """Return processors that make the largest logit of each row a draw by the row's own seed; none for greedy decoding.

    argmax_i (z_i - log E_i) with E_i ~ Exp(1) has the probabilities softmax(z) (Gumbel 1954, arXiv:1411.0030).
    `generate` itself draws all rows with one generator, so that a row's draw depends on how many rows there are.

    Args:
        decoding: Settings.
        seeds: One a row.
        device: Where the logits are.
    """
    import torch
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    if decoding.temperature == 0:
        return []
    generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def add_noise(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        noise = torch.empty_like(logits, dtype=torch.float32)
        for row, generator in zip(noise, generators, strict=True):
            row.exponential_(generator=generator)
        return logits.float() - noise.clamp_(min=torch.finfo(torch.float32).tiny).log_()

    processors: list[Any] = [TemperatureLogitsWarper(float(decoding.temperature))]
    if decoding.top_k:
        processors.append(TopKLogitsWarper(decoding.top_k))
    if decoding.top_p < 1:
        processors.append(TopPLogitsWarper(decoding.top_p))
    return [*processors, add_noise]
