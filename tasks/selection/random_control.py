"""A control for the threshold rule: random pairs of the same prompts, as many, and of like lengths.

A selector that trains no better policy than this one has gained nothing by its reward gaps: what it gained is due to
the number of its pairs, to its prompts, or to how much longer its chosen sides are.
"""

import numpy as np

from tasks.selection.caps import first_of_each
from tasks.selection.draws import pair_draws, prompt_seeds
from tasks.selection.pairs import Candidates, PairIndices, SeededSettings, admissible
from tasks.selection.threshold import ThresholdSettings, select_pairs

EDGES = np.array([0.1, 0.5])
"""Of the difference of two lengths over the longer one: alike up to the first; above the second, one is more than twice
as long as the other."""
BINS = 2 * EDGES.size + 1


class RandomSettings(SeededSettings, ThresholdSettings):
    """Control: of each prompt as many random pairs as the threshold keeps, of like lengths, any gap above 0."""


def random_control(candidates: Candidates, kept: PairIndices, settings: RandomSettings) -> PairIndices:
    """Return random pairs, chosen above rejected: of each prompt and each bin of lengths, as many as were kept.

    Every subset of so many of a prompt's pairs in a bin is equally likely, those that were kept included. Fewer kept
    pairs give a part of what more give.

    Args:
        candidates: As the truncation rule leaves them.
        kept: What the threshold rule and the caps keep of them.
        settings: The seed; tau and eta have decided what was kept.
    """
    has_pair = np.bincount(kept.row, minlength=len(candidates.rewards)) > 0
    rewards = np.where(has_pair[:, None], candidates.rewards, np.nan)
    every = select_pairs(rewards, tau=1.0, eta=0.5)  # a gap above 0
    every = every.where(admissible(every, candidates))
    group, wanted = (pairs.row * BINS + length_bin(candidates, pairs) for pairs in (every, kept))
    seeds = prompt_seeds(settings.seed, candidates.prompt_ids.to_pylist(), "random")
    order = np.lexsort((pair_draws(seeds, *every), group))
    counts = np.bincount(wanted, minlength=len(rewards) * BINS)
    return every.where(first_of_each(group, order, counts))


def length_bin(candidates: Candidates, pairs: PairIndices) -> np.ndarray:
    """Return how much longer the chosen side of each pair is, (pairs,) int in five bins.

    0: less than half as long; 1: shorter; 2: within a tenth of the longer one; 3: longer; 4: more than twice as long.
    """
    chosen, rejected = (candidates.lengths[pairs.row, side] for side in (pairs.chosen, pairs.rejected))
    difference = (chosen - rejected) / np.maximum(np.maximum(chosen, rejected), 1)
    bins: np.ndarray = EDGES.size + np.sign(difference).astype(int) * np.searchsorted(EDGES, np.abs(difference))
    return bins
