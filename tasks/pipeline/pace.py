"""How far some work is, how fast it goes, how long it will take, and the mean of what it gives. Pure."""

from collections.abc import Callable

import numpy as np

Tell = Callable[[np.ndarray], None]
"""Called with what a batch of completions was given, a value each, as soon as it is."""


class Mean:
    """The mean of the values that were computed so far; NaN, as of what could not be read, is left out."""

    def __init__(self, name: str) -> None:
        """Name the values."""
        self.name, self.number, self.counted, self.sum = name, 0, 0, 0.0

    def add(self, values: np.ndarray) -> None:
        """Take more values."""
        known = values[~np.isnan(values)]
        self.number += len(values)
        self.counted += len(known)
        self.sum += float(known.sum(dtype=np.float64))

    def text(self) -> str:
        """Return the mean with its name; nothing where there is none."""
        return f"mean {self.name} {self.sum / self.counted:.3f}" if self.counted else ""


def duration_text(seconds: float) -> str:
    """Return a duration in the largest unit that it holds twice: 70 s, 12 min, 5 h, 3 d."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def rate_text(per_second: float) -> str:
    """Return a rate in the smallest unit of time that holds one: 3.2/s, 12/min, 4.5/h."""
    unit, length = next((each for each in (("s", 1), ("min", 60)) if per_second * each[1] >= 1), ("h", 3_600))
    rate = per_second * length
    return f"{rate:,.{1 if rate < 9.95 else 0}f}/{unit}"


def position_text(done: int, total: int | None) -> str:
    """Return how much is done: of a total, with the whole percents, or, where that is not known, by itself."""
    return f"{done:,}" if total is None else f"{done:,} / {total:,} ({100 * done // max(total, 1)}%)"


def pace_texts(here: int, rest: int | None, seconds: float) -> list[str]:
    """Return the rate, and the time that the rest takes at that rate; nothing where nothing is done yet.

    Args:
        here: Units done in the time given; what was done before does not count.
        rest: Units to do; None: not known.
        seconds: The time.
    """
    if here <= 0 or seconds <= 0:
        return []
    left = [] if rest is None else [f"{duration_text(rest * seconds / here)} left"]
    return [rate_text(here / seconds), *left]
