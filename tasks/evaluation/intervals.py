"""Bootstrap intervals over prompts. Pure numpy."""

from typing import Any, Protocol

import numpy as np

CHUNK = 1 << 20
"""Most prompts that are drawn at once, over all resamples: what bounds the memory."""


class Statistic(Protocol):
    """Computes a number from the rows along an axis, for every place of the axes before it, as `np.mean` does."""

    def __call__(self, rows: np.ndarray, /, *, axis: int) -> Any:
        """Return the number, or one for each resample."""


def bootstrap_interval(rows: np.ndarray, statistic: Statistic, samples: int, seed: int) -> tuple[float, float]:
    """Return the 95% percentile interval of a statistic over resamples of the prompts, drawn with replacement.

    Args:
        rows: (prompts, ...) one row a prompt, at least one.
        statistic: Called with (resamples, prompts, ...) and `axis=1`; returns (resamples,).
        samples: Number of resamples.
        seed: Seed of the resampling.
    """
    random, prompts = np.random.default_rng(seed), len(rows)
    at_once = max(1, CHUNK // prompts)
    sizes = [min(at_once, samples - done) for done in range(0, samples, at_once)]
    found = [statistic(rows[random.integers(0, prompts, (size, prompts))], axis=1) for size in sizes]
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return float(low), float(high)
