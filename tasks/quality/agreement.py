"""How far two rewards rank the completions of a prompt alike. Pure: numpy and scipy."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np

from tasks.evaluation.intervals import bootstrap_interval

BOOTSTRAP = 2000
"""Resamples of the prompts behind an interval."""
ByPrompt = Mapping[str, np.ndarray]
"""prompt_id -> rewards of its completions, (k,); NaN: none."""


class Correlation(NamedTuple):
    """The mean of a rank correlation over prompts, and its 95% interval over prompts; None of no prompts."""

    mean: float | None
    low: float | None
    high: float | None


class Agreement(NamedTuple):
    """How far two rewards agree on a set."""

    set: str
    reward: str
    other: str
    prompts: int
    """Prompts where both rewards tell some completions apart: on others there is no ranking to agree on."""
    spearman: Correlation
    kendall: Correlation


def agreements(place: str, rewards: Mapping[str, ByPrompt], seed: int) -> Iterator[Agreement]:
    """Yield how far each two rewards agree; last, the first of them with itself, shuffled within each prompt.

    Args:
        place: Name of the set.
        rewards: Name -> rewards.
        seed: Of the bootstrap and the shuffle.
    """
    for one, other in combinations(rewards, 2):
        yield _agreement((place, one, other), _matched(rewards[one], rewards[other]), seed)
    first, random = next(iter(rewards)), np.random.default_rng(seed)
    shuffled = {id_: random.permutation(values) for id_, values in rewards[first].items()}
    yield _agreement((place, first, f"{first}, shuffled"), _matched(rewards[first], shuffled), seed)


def rank_correlations(one: np.ndarray, other: np.ndarray) -> tuple[float, float] | None:
    """Return Spearman's rho and Kendall's tau-b of two rewards of a prompt's completions; None where one is constant.

    Args:
        one: (k,) rewards; NaN: the completion is left out.
        other: (k,) the other's.
    """
    from scipy.stats import kendalltau, spearmanr

    known = ~(np.isnan(one) | np.isnan(other))
    one, other = one[known], other[known]
    if one.size < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic), float(kendalltau(one, other).statistic)


def _agreement(place: tuple[str, str, str], rewards: Iterable[tuple[np.ndarray, np.ndarray]], seed: int) -> Agreement:
    found = [both for pair in rewards if (both := rank_correlations(*pair)) is not None]
    spearman, kendall = (_mean([both[which] for both in found], seed) for which in (0, 1))
    return Agreement(*place, len(found), spearman, kendall)


def _matched(one: ByPrompt, other: ByPrompt) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(one[id_], other[id_]) for id_ in sorted(one)]


def _mean(values: list[float], seed: int) -> Correlation:
    if not values:
        return Correlation(None, None, None)
    rows = np.array(values)
    return Correlation(float(rows.mean()), *bootstrap_interval(rows, np.mean, BOOTSTRAP, seed))
