"""An arm against itself: its seeds split at random into two arms, which should not be told apart. Pure numpy."""

import numpy as np

from tasks.comparison.differences import LEVEL, of_seeds
from tasks.config.errors import ConfigurationError

LEAST_SEEDS = 4
"""Two a side: of one seed, no interval is known."""


def told_apart(values: np.ndarray, splits: int, draws: np.random.Generator) -> int:
    """Return in how many random splits the two halves are told apart, as two arms with these values would be.

    The expected share is one twentieth where intervals of 95% are right. Splits of few seeds are mostly the same ones
    again, and share their seeds: the share of one arm scatters far more than that of so many comparisons.

    Args:
        values: (seeds,) such as rewards at one KL. Of an odd number, each split leaves one out.
        splits: How many.
        draws: Where the splits come from.

    Raises:
        ConfigurationError: There are fewer than `LEAST_SEEDS`.
    """
    if values.size < LEAST_SEEDS:
        raise ConfigurationError(f"{values.size} seeds cannot be split: {LEAST_SEEDS} is the least, and 10 is better")
    half = values.size // 2
    orders = (draws.permutation(values) for _ in range(splits))
    return sum(of_seeds(order[:half] - order[half : 2 * half]).p <= 1 - LEVEL for order in orders)


def usual_range(seeds: int, splits: int, arms: int, draws: np.random.Generator) -> tuple[float, float]:
    """Return the shares between which 95% of simulated arms of independent normal seeds are, whose verdicts are right.

    Args:
        seeds: Of an arm.
        splits: Of each arm.
        arms: How many are simulated.
        draws: Where they come from.
    """
    shares = [told_apart(draws.normal(size=seeds), splits, draws) / splits for _ in range(arms)]
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)
