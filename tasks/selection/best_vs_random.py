"""One pair a prompt: the highest reward against a random lower one."""

import numpy as np

from tasks.selection.draws import completion_draws, prompt_seeds
from tasks.selection.pairs import Candidates, PairIndices, SeededSettings, beaten, best_of


class BestVsRandomSettings(SeededSettings):
    """The highest reward against a random lower one."""


def best_vs_random_pairs(candidates: Candidates, settings: BestVsRandomSettings) -> PairIndices:
    """Return each prompt's best completion that may be chosen over one of those that it beats, each equally likely."""
    chosen = best_of(candidates)
    lower = beaten(candidates, chosen)
    seeds = prompt_seeds(settings.seed, candidates.prompt_ids.to_pylist(), "best_vs_random")
    drawn = completion_draws(seeds, lower.shape[1])
    rejected = np.where(lower, drawn, np.iinfo(np.uint64).max).argmin(axis=1)
    return PairIndices(np.arange(len(lower)), chosen, rejected).where(lower[np.arange(len(lower)), rejected])
