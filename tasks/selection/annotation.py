"""The data set's own pairs, laid out as completions: 2i is chosen over 2i + 1, whatever their rewards."""

from typing import ClassVar

import numpy as np

from tasks.selection.pairs import Candidates, PairIndices, StrategySettings


class AnnotationSettings(StrategySettings):
    """The data set's own pairs."""

    unread: ClassVar[frozenset[str]] = frozenset({"truncated"})

    def explain_none(self) -> tuple[str, str]:
        """Return what the rule asks for, and what to change where no pair has it."""
        return "pairs.strategy = annotation takes the data set's own pairs", "check that their sides differ"


def annotated_pairs(candidates: Candidates, settings: AnnotationSettings) -> PairIndices:
    """Return the pairs (2i, 2i + 1) of the completions that are there."""
    row, chosen = np.nonzero(candidates.texts[:, 0::2] >= 0)
    return PairIndices(row, 2 * chosen, 2 * chosen + 1)
