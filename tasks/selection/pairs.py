"""Pairs of completions as indices, what a strategy selects them from, and what its settings are. Pure numpy."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from tasks.config.sections import Section

if TYPE_CHECKING:
    import pyarrow as pa


class StrategySettings(Section):
    """What a strategy reads of the section `pairs`, the fields for every strategy apart."""

    unread: ClassVar[frozenset[str]] = frozenset()
    """Fields for every strategy that mean nothing to this one."""

    def explain_none(self) -> tuple[str, str]:
        """Return what the strategy asks for, and what to change where no pair has it."""
        return "the strategy found none", "raise sampling.k, temperature or max_new_tokens"


class SeededSettings(StrategySettings):
    """What a strategy reads that draws at random."""

    seed: int = Field(0, ge=0)
    """Seed of what is drawn: by a strategy, by the random cap, by `max_pairs`. What is drawn for a prompt depends on it
    and the prompt_id alone."""


class PairIndices(NamedTuple):
    """Selected pairs: three int arrays of one length, ordered by row, then chosen, then rejected."""

    row: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray

    def where(self, keep: np.ndarray) -> "PairIndices":
        """Return the pairs that a mask or an index array picks."""
        return PairIndices(self.row[keep], self.chosen[keep], self.rejected[keep])

    def ordered(self) -> "PairIndices":
        """Return the pairs in their order."""
        return self.where(np.lexsort((self.rejected, self.chosen, self.row)))


class Candidates(NamedTuple):
    """The completions of n prompts, at most k each, as (n, k) arrays."""

    prompt_ids: "pa.Array"
    """(n,) strings."""
    rewards: np.ndarray
    """(n, k) float64; NaN where a sample is missing, has no reward, or is left out for being truncated."""
    truncated: np.ndarray
    """(n, k) bool: cut at max_new_tokens."""
    lengths: np.ndarray
    """(n, k) int: tokens; 0 where a sample is missing."""
    texts: np.ndarray
    """(n, k) int: the place of its text in `distinct_texts`; -1 where a sample is missing."""
    distinct_texts: "pa.Array"
    """Every different text once, strings."""
    may_be_chosen: np.ndarray
    """(n, k) bool: the truncation rule and the gates let the completion be the chosen side of a pair."""
    terms: Mapping[str, np.ndarray] = MappingProxyType({})
    """Name -> (n, k) float64: each of several rewards as it counts in `rewards`, before its weight."""


def no_pairs() -> PairIndices:
    """Return no pairs."""
    return PairIndices(*(np.empty(0, np.intp) for _ in range(3)))


def admissible(pairs: PairIndices, candidates: Candidates) -> np.ndarray:
    """Tell of each pair, (pairs,) bool, whether its texts differ and its chosen side may be chosen."""
    row, chosen, rejected = pairs
    differ = candidates.texts[row, chosen] != candidates.texts[row, rejected]
    allowed: np.ndarray = differ & candidates.may_be_chosen[row, chosen]
    return allowed


def best_of(candidates: Candidates) -> np.ndarray:
    """Return each prompt's completion of the highest reward that may be chosen, (n,) int; the first of several."""
    known = candidates.may_be_chosen & ~np.isnan(candidates.rewards)
    best: np.ndarray = np.argmax(np.where(known, candidates.rewards, -np.inf), axis=1)
    return best


def beaten(candidates: Candidates, chosen: np.ndarray) -> np.ndarray:
    """Tell which completions have a lower reward and another text than their prompt's chosen one, (n, k) bool.

    Args:
        candidates: The completions of n prompts.
        chosen: (n,) the completion that is chosen; one that may not be beats none.
    """
    rows = np.arange(len(chosen))
    own = candidates.rewards[rows, chosen], candidates.texts[rows, chosen], candidates.may_be_chosen[rows, chosen]
    reward, text, may_be = (values[:, None] for values in own)
    lower: np.ndarray = (candidates.rewards < reward) & (candidates.texts != text) & may_be
    return lower


def once_each_text(candidates: Candidates) -> np.ndarray:
    """Return the rewards, (n, k), NaN where an earlier completion of the prompt has the same text and a reward."""
    known, texts = ~np.isnan(candidates.rewards), candidates.texts
    again = np.zeros(known.shape, bool)
    for place in range(1, known.shape[1]):
        again[:, place] = (known[:, :place] & (texts[:, :place] == texts[:, place, None])).any(axis=1)
    return np.where(again, np.nan, candidates.rewards)
