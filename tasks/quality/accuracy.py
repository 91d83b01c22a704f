"""How often a reward prefers the chosen side of a pair, by category, and whether it knows. Pure numpy."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tasks.quality.answers import ALL, PairedAnswers
from tasks.rewards.calibration import calibrating_tau, calibration_error, reliability, wilson_interval

Rewards = Mapping[tuple[str, int], float]
"""(prompt_id, number of the completion) -> reward; NaN: none."""


class Accuracy(NamedTuple):
    """How often a reward is right in a category."""

    set: str
    category: str
    reward: str
    pairs: int
    """Pairs of which both sides have a reward."""
    accuracy: float | None
    """Share of the pairs whose chosen side has the higher reward, a tie counting half; None of no pairs."""
    low: float | None
    high: float | None
    """95% interval (Wilson)."""
    ties: int
    unscored: int


class Calibration(NamedTuple):
    """Whether a reward is right as often as sigma(gap / tau) says."""

    set: str
    reward: str
    pairs: int
    tau: float
    ece: float
    """Calibration error at tau."""
    calibrating_tau: float | None
    pairs_by_bin: list[float]
    said: list[float | None]
    right: list[float | None]
    """The reliability diagram, a bin each; None where a bin has no pair."""


def gaps_by_category(answers: PairedAnswers, rewards: Rewards) -> dict[str, np.ndarray]:
    """Return r(x, chosen) - r(x, rejected) of each pair by category, the whole set first; NaN: a side has no reward."""
    pairs = answers.pairs
    every = np.array([rewards[pair.prompt_id, pair.chosen] - rewards[pair.prompt_id, pair.rejected] for pair in pairs])
    categories = np.array([pair.category for pair in pairs])
    names = sorted({*categories.tolist()} - {ALL})
    return {ALL: every, **{name: every[categories == name] for name in names}}


def accuracy_of(place: tuple[str, str, str], gaps: np.ndarray) -> Accuracy:
    """Return how often a reward is right.

    Args:
        place: Names of the set, the category and the reward.
        gaps: (pairs,) reward gaps; NaN: left out and counted.
    """
    known = gaps[~np.isnan(gaps)]
    counts = {"pairs": known.size, "ties": int((known == 0).sum()), "unscored": int(gaps.size - known.size)}
    if not known.size:
        return Accuracy(*place, accuracy=None, low=None, high=None, **counts)
    accuracy = float(np.mean((known > 0) + 0.5 * (known == 0)))
    low, high = wilson_interval(accuracy, known.size)
    return Accuracy(*place, accuracy=accuracy, low=low, high=high, **counts)


def calibration_of(place: tuple[str, str], gaps: np.ndarray, tau: float) -> Calibration | None:
    """Return whether a reward knows how often it is right; None of no pairs.

    Args:
        place: Names of the set and the reward.
        gaps: (pairs,) reward gaps; NaN: left out.
        tau: Temperature of the gap.
    """
    known = gaps[~np.isnan(gaps)]
    if not known.size:
        return None
    found = reliability(known, tau)
    said, right = ([None if np.isnan(value) else float(value) for value in values] for values in found[1:])
    error, best = calibration_error(found), calibrating_tau(known)
    return Calibration(*place, known.size, tau, error, best, found.pairs.tolist(), said, right)
