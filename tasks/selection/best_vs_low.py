"""One pair a prompt: the highest reward against the one nearest to mean - 2 standard deviations (arXiv:2502.16825).

The worst of many samples is often broken, and teaches little; the paper rejects one that is low without being that.
"""

import numpy as np

from tasks.selection.pairs import Candidates, PairIndices, StrategySettings, beaten, best_of


class BestVsLowSettings(StrategySettings):
    """The highest reward against the one nearest to the prompt's mean - 2 standard deviations (arXiv:2502.16825)."""


def best_vs_low_pairs(candidates: Candidates, settings: BestVsLowSettings) -> PairIndices:
    """Return each prompt's best completion over the beaten one whose reward is nearest to mean - 2 sd.

    Mean and standard deviation (over n, not n - 1) are those of all rewards of the prompt. Of two rewards equally near,
    the lower one is rejected; of two equal rewards, the first.
    """
    rewards = candidates.rewards
    chosen = best_of(candidates)
    lower = beaten(candidates, chosen)
    rows = np.flatnonzero(lower.any(axis=1))
    with np.errstate(invalid="ignore"):  # inf - inf
        low = np.nanmean(rewards[rows], axis=1) - 2 * np.nanstd(rewards[rows], axis=1)
        distance = np.where(lower[rows], np.abs(rewards[rows] - low[:, None]), np.inf)
        nearest = distance == np.fmin.reduce(distance, axis=1)[:, None]
    rejected = np.where(nearest & lower[rows], rewards[rows], np.inf).argmin(axis=1)
    return PairIndices(rows, chosen[rows], rejected).where(lower[rows, rejected])
