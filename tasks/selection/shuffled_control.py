"""A control for the threshold rule: its pairs, each with its sides swapped by a fair coin. It must gain nothing."""

import numpy as np

from tasks.selection.draws import pair_draws, prompt_seeds
from tasks.selection.pairs import Candidates, PairIndices, SeededSettings
from tasks.selection.threshold import ThresholdSettings


class ShuffledSettings(SeededSettings, ThresholdSettings):
    """Control: the threshold's pairs, each with its sides swapped by a fair coin."""


def shuffled_control(candidates: Candidates, kept: PairIndices, settings: ShuffledSettings) -> PairIndices:
    """Return the pairs with the sides of about half of them swapped: the lower reward is chosen there.

    Truncated completions are left out before the coin is tossed: with `truncated: never_chosen` a swapped pair may have
    one as its chosen side, since labels that are never swapped would say something.

    Args:
        candidates: As the truncation rule leaves them.
        kept: What the threshold rule and the caps keep of them.
        settings: The seed; tau and eta have decided what was kept.
    """
    seeds = prompt_seeds(settings.seed, candidates.prompt_ids.to_pylist(), "shuffled")
    swap = pair_draws(seeds, *kept) & np.uint64(1) == 1
    chosen, rejected = np.where(swap, kept.rejected, kept.chosen), np.where(swap, kept.chosen, kept.rejected)
    return PairIndices(kept.row, chosen, rejected).ordered()
