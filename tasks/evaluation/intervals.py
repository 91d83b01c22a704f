"""Bootstrap intervals over prompts. Pure numpy."""

from collections.abc import Callable

import numpy as np


def bootstrap_interval(
    rows: np.ndarray, statistic: Callable[[np.ndarray], float], samples: int, seed: int
) -> tuple[float, float]:
    """Return the 95% percentile interval of a statistic over resamples of the prompts, drawn with replacement.

    Args:
        rows: (prompts, ...) one row a prompt, at least one.
        statistic: Computes a number from such rows.
        samples: Number of resamples.
        seed: Seed of the resampling.
    """
    random = np.random.default_rng(seed)
    found = [statistic(rows[random.integers(0, len(rows), len(rows))]) for _ in range(samples)]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
