"""A histogram of numbers that arrive a few at a time, in constant memory. Pure numpy."""

import math
import sys
from typing import Any

import numpy as np

BINS = 64
"""Bins; even, so that two of them can become one."""


class GrowingHistogram:
    """Counts of numbers from 0 up, in at most `BINS` bins of like width.

    The width is a power of two, so that the counts do not depend on the order in which the numbers come.
    """

    def __init__(self) -> None:
        """Start without a number, and so without a width."""
        self.counts = np.zeros(BINS, np.int64)
        self.width = 0.0

    def add(self, values: np.ndarray) -> None:
        """Count numbers.

        Args:
            values: Any shape; finite, at least 0.
        """
        highest = float(values.max(initial=0.0))
        if not self.width and highest:
            self.width = 2.0 ** math.ceil(math.log2(max(highest / BINS, sys.float_info.min)))
        while highest > self.width * BINS:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.width *= 2
        places = np.minimum((values.ravel() / (self.width or 1.0)).astype(np.int64), BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)

    def stats(self) -> dict[str, Any]:
        """Return the width of a bin, and the counts up to the last number; the first bin begins at 0."""
        last = int(np.flatnonzero(self.counts).max(initial=-1))
        return {"width": self.width, "counts": self.counts[: last + 1].tolist()}
