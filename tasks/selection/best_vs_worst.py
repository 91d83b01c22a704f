"""The usual baseline: one pair a prompt, the highest reward against the lowest."""

import numpy as np

from tasks.selection.pairs import Candidates, PairIndices, StrategySettings


class BestVsWorstSettings(StrategySettings):
    """The highest against the lowest reward."""

    def explain_none(self) -> tuple[str, str]:
        """Return what the rule asks for, and what to change where no pair has it."""
        return (
            "pairs.strategy = best_vs_worst asks for two different rewards",
            "raise sampling.k, temperature or max_new_tokens",
        )


def best_vs_worst_pairs(candidates: Candidates, settings: BestVsWorstSettings) -> PairIndices:
    """Return each prompt's best completion that may be chosen over its worst."""
    chosen_rewards = np.where(candidates.may_be_chosen, candidates.rewards, np.nan)
    return best_against_worst(chosen_rewards, candidates.rewards)


def best_against_worst(chosen_rewards: np.ndarray, rejected_rewards: np.ndarray) -> PairIndices:
    """Return one pair a row: the highest of `chosen_rewards` over the lowest of `rejected_rewards`, where it is higher.

    Args:
        chosen_rewards: (n, k) rewards of the completions that may be chosen; NaN marks the others.
        rejected_rewards: (n, k) rewards of the completions that may be rejected; NaN marks the others.
    """
    best = np.where(np.isnan(chosen_rewards), -np.inf, chosen_rewards)
    worst = np.where(np.isnan(rejected_rewards), np.inf, rejected_rewards)
    rows = np.arange(best.shape[0])
    chosen, rejected = best.argmax(axis=1), worst.argmin(axis=1)
    return PairIndices(rows, chosen, rejected).where(best[rows, chosen] > worst[rows, rejected])
