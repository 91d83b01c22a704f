"""Curves of reward against KL: what an arm gains at which distance from where it began. Pure numpy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tasks.comparison.differences import of_seeds

POINTS = 25
"""KLs at which a band is drawn."""


class Curve(NamedTuple):
    """One training: its models in order of their KL from the reference, which comes first at 0."""

    kl: np.ndarray
    """(models,) nats a completion, ascending."""
    reward: np.ndarray
    """(models,) mean reward over the held-out prompts."""

    @property
    def reach(self) -> float:
        """Return the highest KL."""
        return float(self.kl[-1])

    def at(self, kl: float) -> float | None:
        """Return the reward at a KL, between the two models next to it; None beyond the last."""
        return float(self.between(np.array(kl))) if kl <= self.reach else None

    def between(self, kl: np.ndarray) -> np.ndarray:
        """Return rewards at KLs, on straight lines between models over sqrt(KL), in which rewards rise about evenly.

        Over KL itself a curve is bent (arXiv:2210.10760): lines there would put a training whose first model is far
        from the reference below one whose models are near.

        Args:
            kl: (...) nats a completion, none beyond the last model.
        """
        rewards: np.ndarray = np.interp(np.sqrt(kl), np.sqrt(self.kl), self.reward)
        return rewards


class Band(NamedTuple):
    """An arm over its seeds, at the same places, such as KLs."""

    at: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    """(points,) each; 95%, Student's t over seeds. Of one seed, all the same."""


def curve(points: Sequence[tuple[float, float]], reference: float) -> Curve:
    """Return a curve of (KL, reward) of models, and the reference's reward; a KL that is estimated below 0 is 0."""
    ordered = sorted([(0.0, reference), *((max(0.0, kl), reward) for kl, reward in points)], key=lambda each: each[0])
    kl, reward = (np.array(values) for values in zip(*ordered, strict=True))
    return Curve(kl, reward)


def band(curves: Sequence[Curve]) -> Band:
    """Return mean and interval of an arm's curves, as far as all of its seeds reach."""
    kl = np.linspace(0, min(each.reach for each in curves), POINTS)
    return band_of(kl, np.array([each.between(kl) for each in curves]))


def band_of(at: np.ndarray, values: np.ndarray) -> Band:
    """Return mean and interval of the values at each place.

    Args:
        at: (points,).
        values: (seeds, points).
    """
    if len(values) == 1:
        return Band(at, values[0], values[0], values[0])
    told = [of_seeds(column) for column in values.T]
    mean, low, high = (np.array([getattr(each, name) for each in told]) for name in ("mean", "low", "high"))
    return Band(at, mean, low, high)


def common_kl(arms: dict[str, Sequence[Curve]]) -> float:
    """Return the KL that every arm reaches with every seed."""
    return min((each.reach for curves in arms.values() for each in curves), default=0.0)
