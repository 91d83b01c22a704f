"""At most `pairs.max_pairs` pairs in all, of pairs that come in parts: those with the smallest draws. Pure numpy.

Every subset of so many pairs is equally likely, and a smaller one is a part of a larger one. Which pairs stay is known
once all have been seen, so that the parts are read twice; what is kept between is one number a pair that may stay.
"""

import numpy as np


class SmallestDraws:
    """The smallest of numbers that come in parts, in memory for about as many as may stay."""

    def __init__(self, count: int) -> None:
        """Start without any; `count` of them may stay."""
        self.count, self.seen = count, 0
        self._draws = np.empty(0, np.uint64)

    def add(self, draws: np.ndarray) -> None:
        """Take numbers, (pairs,) uint64."""
        self.seen += draws.size
        draws = np.concatenate([self._draws, draws])
        self._draws = np.partition(draws, self.count)[: self.count + 1] if draws.size > self.count else draws

    def bound(self) -> np.uint64 | None:
        """Return the number below which the smallest `count` are, and no others; None: all stay.

        Should the last one to stay and the first to go be equal, neither stays: a chance of one in 2^64 a pair.
        """
        return self._draws.max() if self.seen > self.count else None
