"""Pairs on several rewards at once: chosen beats rejected on each of them, so that none is bought with another."""

import numpy as np

from tasks.config.errors import ConfigurationError
from tasks.selection.pairs import Candidates, PairIndices
from tasks.selection.threshold import ThresholdSettings, select_pairs


class ParetoSettings(ThresholdSettings):
    """Every pair whose preference is above eta by each of the rewards in `pairs.rewards`."""

    def explain_none(self) -> tuple[str, str]:
        """Return what the rule asks for, and what to change where no pair has it."""
        asked, remedy = super().explain_none()
        return f"{asked} on each reward at once", remedy


def pareto_pairs(candidates: Candidates, settings: ParetoSettings) -> PairIndices:
    """Return every pair with sigma((r_j - r_l) / tau) > eta for each reward r, as it counts before its weight.

    Raises:
        ConfigurationError: There are not several rewards.
    """
    if len(candidates.terms) < 2:
        raise ConfigurationError(
            "pairs.strategy = pareto needs several rewards with a weight in pairs.rewards: name them, or take threshold"
        )
    k = candidates.rewards.shape[1]
    found: np.ndarray | None = None
    for values in candidates.terms.values():
        own = select_pairs(np.where(np.isnan(candidates.rewards), np.nan, values), settings.tau, settings.eta)
        places = (own.row * k + own.chosen) * k + own.rejected
        found = places if found is None else np.intersect1d(found, places, assume_unique=True)
    assert found is not None
    return PairIndices(found // k**2, found // k % k, found % k)
