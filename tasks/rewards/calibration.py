"""How far a reward model is right on held-out pairs, and how far it knows that. Pure numpy.

A Bradley-Terry model says that chosen beats rejected with probability sigma(gap / tau). It is calibrated where that is
how often it does.
"""

import math
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tasks.selection.threshold import preference_prob

BINS = 10
"""Bins of the reliability diagram, from probability 0.5 to 1."""


class Reliability(NamedTuple):
    """The preferred side of each pair, by how sure the model is of it; (bins,) each, NaN where a bin has no pair."""

    pairs: np.ndarray
    said: np.ndarray
    """Mean probability that the model gives the side it prefers."""
    right: np.ndarray
    """Share of the pairs in which the side it prefers is the chosen one; a tie counts half."""


def gaps_of(rewards: pa.Table) -> np.ndarray:
    """Return r(x, chosen) - r(x, rejected) of each held-out pair, (pairs,) float64."""
    gaps: np.ndarray = rewards["chosen_reward"].to_numpy() - rewards["rejected_reward"].to_numpy()
    return gaps


def preference_stats(rewards: pa.Table) -> dict[str, float | None]:
    """Return what is recorded of a reward model's held-out pairs; of none, an accuracy of None alone.

    `accuracy` is how often chosen beats rejected, a tie counting half, with its 95% interval (Wilson); `ece` the
    calibration error at tau 1; `calibrating_tau` the tau under which the pairs are likeliest.
    """
    if not rewards.num_rows:
        return {"accuracy": None}
    gaps = gaps_of(rewards)
    both = np.concatenate([rewards["chosen_reward"].to_numpy(), rewards["rejected_reward"].to_numpy()])
    accuracy = float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))
    low, high = wilson_interval(accuracy, gaps.size)
    return {
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "reward_mean": float(both.mean()),
        "reward_std": float(both.std()),
        "ece": calibration_error(reliability(gaps, 1.0)),
        "calibrating_tau": calibrating_tau(gaps),
    }


def reliability(gaps: np.ndarray, tau: float) -> Reliability:
    """Return how often the model is right, by how sure it is.

    Args:
        gaps: (pairs,) r(x, chosen) - r(x, rejected).
        tau: Temperature of the gap.
    """
    sure = preference_prob(np.abs(gaps), tau)
    right = (gaps > 0) + 0.5 * (gaps == 0)
    places = np.minimum(((sure - 0.5) * 2 * BINS).astype(int), BINS - 1)
    pairs, said, hits = (np.bincount(places, weights, BINS) for weights in (None, sure, right))
    with np.errstate(invalid="ignore"):
        return Reliability(pairs, said / pairs, hits / pairs)


def calibration_error(found: Reliability) -> float:
    """Return the expected calibration error (arXiv:1706.04599, equation 3): mean |said - right|, weighted by pairs."""
    some = found.pairs > 0
    return float(np.average(np.abs(found.said - found.right)[some], weights=found.pairs[some]))


def calibrating_tau(gaps: np.ndarray) -> float | None:
    """Return the tau > 0 that minimises the mean of -log sigma(gap / tau) (temperature scaling, arXiv:1706.04599).

    None where there is none: all pairs are right, so that a smaller tau is always better, or the model is at or below
    chance, so that a larger one is. The loss is convex in 1 / tau: its slope is zero in one place at most.
    """

    def slope(inverse: float) -> float:  # of the loss in 1 / tau
        return float(-(gaps * preference_prob(-gaps, 1 / inverse)).mean())

    if not (gaps < 0).any() or gaps.mean() <= 0:
        return None
    low = high = 1.0 / float(np.abs(gaps).max())
    while slope(low) >= 0:
        low /= 2
    while slope(high) <= 0:
        high *= 2
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def wilson_interval(share: float, trials: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    z2 = 1.959964**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = math.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)
