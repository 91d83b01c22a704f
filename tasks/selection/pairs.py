"""Pairs of completions as indices, what a strategy selects them from, and what its settings are. Pure numpy."""

from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.config.sections import Section


class StrategySettings(Section):
    """What a strategy reads of the section `pairs`, the fields for every strategy apart."""

    unread: ClassVar[frozenset[str]] = frozenset()
    """Fields for every strategy that mean nothing to this one."""

    def explain_none(self) -> tuple[str, str]:
        """Return what the strategy asks for, and what to change where no pair has it."""
        return "the strategy found none", "raise sampling.k, temperature or max_new_tokens"


class PairIndices(NamedTuple):
    """Selected pairs: three int arrays of one length, ordered by row, then chosen, then rejected."""

    row: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray

    def where(self, keep: np.ndarray) -> "PairIndices":
        """Return the pairs that a mask or an index array picks."""
        return PairIndices(self.row[keep], self.chosen[keep], self.rejected[keep])


class Candidates(NamedTuple):
    """The completions of n prompts, at most k each, as (n, k) arrays."""

    prompt_ids: pa.Array
    """(n,) strings."""
    rewards: np.ndarray
    """(n, k) float64; NaN where a sample is missing, has no reward, or is left out for being truncated."""
    truncated: np.ndarray
    """(n, k) bool: cut at max_new_tokens."""
    lengths: np.ndarray
    """(n, k) int: tokens; 0 where a sample is missing."""
    texts: np.ndarray
    """(n, k) int: the place of its text in `distinct_texts`; -1 where a sample is missing."""
    distinct_texts: pa.Array
    """Every different text once, strings."""
    may_be_chosen: np.ndarray
    """(n, k) bool: the truncation rule lets the completion be the chosen side of a pair."""


def no_pairs() -> PairIndices:
    """Return no pairs."""
    return PairIndices(*(np.empty(0, np.intp) for _ in range(3)))
