"""How much two arms differ, over seeds and prompts at once, and whether they can be told apart. Pure numpy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95


class Difference(NamedTuple):
    """A mean difference with its interval; `p` is two-sided, against no difference."""

    mean: float
    low: float
    high: float
    p: float


def of_seeds(values: Sequence[float]) -> Difference:
    """Return the mean of one number a seed, with Student's t; of a single seed, an interval without end.

    Args:
        values: Differences, (seeds,).
    """
    numbers = np.asarray(values, np.float64)
    variance = float(numbers.var(ddof=1)) / numbers.size if numbers.size > 1 else np.inf
    return _told(float(numbers.mean()), variance, numbers.size - 1.0)


def of_prompts_and_seeds(values: np.ndarray) -> Difference:
    """Return the mean of differences that share both the noise of their seed and that of their prompt.

    Seeds and prompts are crossed: every seed sees the same prompts. The variance of the mean is that of a random draw
    of seeds and of prompts, var(seed means) / S + var(prompt means) / P - var(rest) / (S P) (Cornfield and Tukey 1956,
    doi:10.1214/aoms/1177728067), its degrees of freedom those of Satterthwaite (1946, doi:10.2307/3002019). To resample
    both would give the same variance, but too narrow an interval where there are few seeds. Of one seed, the variance
    is that over prompts alone, and says nothing of another seed.

    Args:
        values: (seeds, prompts) differences, 0 where there is none.
    """
    seeds, prompts = values.shape
    mean = float(values.mean())
    by_prompt = values.mean(0).var(ddof=1) / prompts if prompts > 1 else np.inf
    if seeds == 1:
        return _told(mean, float(by_prompt), prompts - 1.0)
    by_seed = values.mean(1).var(ddof=1) / seeds
    rest = values - values.mean(0) - values.mean(1)[:, None] + mean
    noise = (rest**2).sum() / max(1, (seeds - 1) * (prompts - 1)) / (seeds * prompts)
    variance = max(float(by_seed + by_prompt - noise), float(by_seed), float(by_prompt))
    freedom = variance**2 / (by_seed**2 / (seeds - 1) + by_prompt**2 / (prompts - 1)) if variance else 1.0
    return _told(mean, variance, float(freedom))


def win_differences(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return how much more often ours beat theirs than half, a tie counting half, (seeds, prompts).

    Args:
        ours: (seeds, prompts, k) rewards; NaN: none.
        theirs: (seeds, prompts, m) rewards of the same prompts; NaN: none.
    """
    left, right = ours[..., :, None], theirs[..., None, :]
    known = ~np.isnan(left) & ~np.isnan(right)
    won = ((left > right) + 0.5 * (left == right)) * known
    compared = np.maximum(known.sum((2, 3)), 1)
    rates: np.ndarray = np.where(known.any((2, 3)), won.sum((2, 3)) / compared, 0.5)
    return rates - 0.5


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for how many there are (Holm 1979): each is at most the chance of any false finding."""
    order = np.argsort(p_values)
    corrected, highest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def _told(mean: float, variance: float, freedom: float) -> Difference:
    from scipy.special import stdtr, stdtrit  # here: the import takes as long as the rest of a command's start

    error = float(np.sqrt(variance))
    if not np.isfinite(error):
        return Difference(mean, -np.inf, np.inf, 1.0)
    if error == 0:
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return Difference(mean, mean - half, mean + half, 2 * float(stdtr(freedom, -abs(mean) / error)))
