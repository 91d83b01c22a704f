"""Totals over all prompts, told from some that were drawn at random, with 90% intervals. Pure."""

import math
from typing import NamedTuple

import numpy as np

LEVEL = 0.9
"""Share of the intervals that should hold what comes."""


class Estimate(NamedTuple):
    """A number that is not known yet."""

    predicted: float
    low: float
    high: float

    def times(self, predicted: float, low: float | None = None, high: float | None = None) -> "Estimate":
        """Return the product with a factor above zero that has bounds of its own; the bounds are multiplied."""
        return Estimate(
            self.predicted * predicted,
            self.low * (predicted if low is None else low),
            self.high * (predicted if high is None else high),
        )

    def plus(self, other: "Estimate") -> "Estimate":
        """Return the sum, of numbers that are high together and low together; the bounds are added."""
        return Estimate(*(one + two for one, two in zip(self, other, strict=True)))


def exactly(value: float) -> Estimate:
    """Return an estimate without doubt."""
    return Estimate(value, value, value)


def total(values: np.ndarray, of: int, most: float) -> Estimate:
    """Return the total over all prompts of what some of them have.

    The interval is Student's t with the finite population correction (Cochran 1977, Sampling Techniques, 2.24): the
    prompts that were drawn are known. Where all of them have the same, it tells nothing of the others, and the bound is
    the share of prompts that may be otherwise and yet was not met: (1 - share) ** prompts = .05.

    Args:
        values: (prompts,) what each prompt of the pilot has.
        of: All prompts, those of the pilot among them.
        most: What a prompt can have at most; the least is 0.
    """
    from scipy.special import stdtrit  # here: the import takes as long as the rest of a command's start

    drawn, known = len(values), float(values.sum())
    rest, mean = of - drawn, float(values.mean())
    predicted = of * mean
    if np.ptp(values) == 0:
        unmet = 1 - ((1 - LEVEL) / 2) ** (1 / drawn)
        return Estimate(predicted, known + rest * mean * (1 - unmet), known + rest * (mean + unmet * (most - mean)))
    half = float(stdtrit(drawn - 1, (1 + LEVEL) / 2)) * of * float(values.std(ddof=1)) * math.sqrt(rest / of / drawn)
    return Estimate(predicted, max(known, predicted - half), min(known + rest * most, predicted + half))
