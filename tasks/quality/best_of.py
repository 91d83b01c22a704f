"""What the best of n completions by a reward is worth on a set of samples. Pure numpy."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tasks.evaluation.intervals import bootstrap_interval
from tasks.quality.agreement import BOOTSTRAP, ByPrompt
from tasks.rewards.best_of import best_of, best_of_kl

RANDOM = "random"


class BestOf(NamedTuple):
    """The gold reward of the best of n by a reward, a number for each n from 1 to k, mean over prompts."""

    set: str
    reward: str
    prompts: int
    unscored: int
    """Completions to which the reward gives nothing: they are kept only where all of a subset are such."""
    n: list[int]
    kl: list[float]
    """log n - (n - 1) / n nats."""
    gold: list[float]
    gain: list[float]
    """What that is above a completion drawn at random."""
    low: list[float]
    high: list[float]
    """95% interval of the gain over prompts, each compared with itself."""


def best_of_curves(place: str, gold_name: str, rewards: Mapping[str, ByPrompt], seed: int) -> list[BestOf]:
    """Return a curve for each reward, for drawing at random (the floor) and for the gold reward (the ceiling).

    n goes up to the fewest completions that a prompt has; prompts with one, or with a completion without a gold reward,
    are left out.

    Args:
        place: Name of the set.
        gold_name: Which of the rewards measures.
        rewards: Name -> rewards.
        seed: Of the bootstrap.
    """
    gold = {id_: own for id_, own in rewards[gold_name].items() if own.size > 1 and not np.isnan(own).any()}
    if not gold:
        return []
    most = min(own.size for own in gold.values())
    by = {RANDOM: {id_: np.zeros(own.size) for id_, own in gold.items()}, **rewards}
    return [_curve((place, name), own, gold, most, seed) for name, own in by.items()]


def _curve(place: tuple[str, str], by: ByPrompt, gold: ByPrompt, most: int, seed: int) -> BestOf:
    worth = np.array([best_of(by[id_], gold[id_])[:most] for id_ in sorted(gold)])
    gains = worth - worth[:, :1]  # the best of one is one at random
    intervals = [bootstrap_interval(column, np.mean, BOOTSTRAP, seed) for column in gains.T]
    sizes, means, gain = list(range(1, most + 1)), worth.mean(axis=0).tolist(), gains.mean(axis=0).tolist()
    low, high = ([interval[side] for interval in intervals] for side in (0, 1))
    unscored = sum(int(np.isnan(by[id_]).sum()) for id_ in gold)
    return BestOf(*place, len(gold), unscored, sizes, [best_of_kl(n) for n in sizes], means, gain, low, high)
