"""What is recorded of rewards: mean, standard deviation and a histogram. Pure numpy."""

from typing import Any

import numpy as np

BINS = 20
"""Bins of the histogram of rewards."""


def reward_stats(rewards: np.ndarray) -> dict[str, Any]:
    """Return mean, standard deviation and a histogram of `BINS` bins; of no rewards, None, None and an empty histogram.

    Args:
        rewards: (completions,) finite numbers.
    """
    values = np.asarray(rewards, np.float64)  # float32 would overflow in the variance, and have no edges between bins
    if not values.size:
        return {"reward_mean": None, "reward_std": None, "histogram": {"counts": [], "edges": []}}
    low, high = float(values.min()), float(values.max())
    if high - low <= 2 * BINS * np.spacing(max(abs(low), abs(high))):  # equal, but for the last bits
        low, high = low - max(0.5, abs(low) / 2), high + max(0.5, abs(high) / 2)
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    histogram = {"counts": counts.tolist(), "edges": [float(f"{edge:.7g}") for edge in edges]}
    return {"reward_mean": float(values.mean()), "reward_std": float(values.std()), "histogram": histogram}
