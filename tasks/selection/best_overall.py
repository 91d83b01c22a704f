"""Rejection sampling over all prompts at once: the K best completions, whatever prompts they are of; K is `max_pairs`.

For fine-tuning on them (`dpo.loss_type: sft_sequence`), as the best one of each prompt is what `best_vs_worst` has. A
completion is a pair with its prompt's worst, which that loss does not read.
"""

import numpy as np

from tasks.selection.pairs import Candidates, PairIndices, StrategySettings, once_each_text


class BestOverallSettings(StrategySettings):
    """The `max_pairs` completions of the highest rewards over all prompts, each against its prompt's worst."""


def best_overall_pairs(candidates: Candidates, settings: BestOverallSettings) -> PairIndices:
    """Return every different text that may be chosen over its prompt's lowest reward, where its own is higher."""
    known = np.where(np.isnan(candidates.rewards), np.inf, candidates.rewards)
    row, chosen = np.nonzero(candidates.may_be_chosen & (once_each_text(candidates) > known.min(axis=1, keepdims=True)))
    return PairIndices(row, chosen, known.argmin(axis=1)[row])


def by_reward(pairs: PairIndices, candidates: Candidates, drawn: np.ndarray) -> np.ndarray:
    """Return numbers that ascend as the chosen reward falls, (pairs,) uint64; equal rewards are in the order of draws.

    The upper half is the reward's 32 bits in the order of numbers, turned round; the lower one is of the draw. So of
    equal rewards at the bound, each is as likely to stay.

    Args:
        pairs: Pairs of which some stay.
        candidates: Their completions; rewards are stored as float32.
        drawn: (pairs,) uint64 of each pair.
    """
    rewards = candidates.rewards[pairs.row, pairs.chosen].astype(np.float32) + np.float32(0)  # one zero, not two
    bits, sign = rewards.view(np.uint32), np.uint32(1 << 31)
    ascending = np.where(bits & sign, ~bits, bits | sign)
    return (~ascending).astype(np.uint64) << np.uint64(32) | drawn >> np.uint64(32)
