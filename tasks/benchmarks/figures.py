"""What a benchmark comes to: figures with intervals over questions, and each answer with its verdict."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from tasks.data.conversations import Messages
from tasks.evaluation.intervals import Statistic, bootstrap_interval


class Figure(NamedTuple):
    """A number that a policy got."""

    policy: str
    benchmark: str
    figure: str
    value: float
    """NaN where nothing could be counted."""
    low: float
    """Ends of the 95% interval; NaN where there is none."""
    high: float
    rows: int
    """Questions, comparisons or prompts that it is made of."""


class Answered(NamedTuple):
    """An answer of a policy, and what was found of it."""

    policy: str
    messages: Messages
    completion: str
    measure: str
    """Such as `mt_bench turn 1`."""
    value: float
    """NaN: the judge was unreadable."""


class Outcome(NamedTuple):
    """What one benchmark comes to."""

    figures: list[Figure]
    answers: list[Answered]
    notes: list[str]
    """What a reader has to know of the figures."""


class Resampling(NamedTuple):
    """How intervals are made."""

    samples: int
    seed: int


def mean_over_questions(rows: np.ndarray, /, *, axis: int) -> Any:
    """Return the mean of all numbers of some questions, NaN left out.

    Args:
        rows: (..., questions, turns), the questions along `axis`.
        axis: Where the questions are; turns follow.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample of unreadable verdicts alone has no mean
        return np.nanmean(rows, axis=(axis, axis + 1))


def figure(
    name: tuple[str, str, str],
    rows: np.ndarray,
    resampling: Resampling,
    statistic: Statistic = mean_over_questions,
    scale: float = 1.0,
) -> Figure:
    """Return a statistic of some rows with its interval over resamples of the rows.

    Args:
        name: Policy, benchmark and figure.
        rows: (questions, ...), one row a question, whose numbers are drawn together.
        resampling: How the interval is made.
        statistic: Of the rows.
        scale: What all three numbers are multiplied with.
    """
    readable = int((~np.isnan(rows).all(axis=tuple(range(1, rows.ndim)))).sum())
    if not readable:
        return Figure(*name, np.nan, np.nan, np.nan, 0)
    low, high = bootstrap_interval(rows, statistic, resampling.samples, resampling.seed)
    value = float(np.asarray(statistic(rows[None], axis=1))[0])
    return Figure(*name, scale * value, scale * low, scale * high, readable)
