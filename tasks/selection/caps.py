"""Which pairs of a prompt stay where it has more than `pairs.max_pairs_per_prompt`. Pure numpy.

The threshold rule keeps hard pairs on purpose: those whose gap is just above it. A cap that takes the widest gaps drops
just these, so the default takes a random subset.
"""

import numpy as np

from tasks.selection.draws import pair_draws


def first_of_each(row: np.ndarray, order: np.ndarray, limit: int | np.ndarray) -> np.ndarray:
    """Return the indices, ascending, of the first `limit` pairs of each row in an order.

    Args:
        row: (pairs,) the row, that is the prompt, of each pair.
        order: (pairs,) indices of all pairs, rows ascending and within a row those to keep first.
        limit: How many, of every row, or (rows,) of each.
    """
    rows = row[order]
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    rank = np.arange(rows.size) - np.repeat(starts, np.diff(np.r_[starts, rows.size]))
    return np.sort(order[rank < (limit[rows] if isinstance(limit, np.ndarray) else limit)])


def widest(row: np.ndarray, chosen: np.ndarray, rejected: np.ndarray, gap: np.ndarray, limit: int) -> np.ndarray:
    """Return the indices of at most `limit` pairs a row, those with the widest reward gap; ties: the lower indices.

    Args:
        row: (pairs,) the row of each pair.
        chosen: (pairs,) its chosen completion.
        rejected: (pairs,) its rejected completion.
        gap: (pairs,) its reward gap r_chosen - r_rejected.
        limit: At least 1.
    """
    return first_of_each(row, np.lexsort((rejected, chosen, -gap, row)), limit)


def random_subset(
    row: np.ndarray, chosen: np.ndarray, rejected: np.ndarray, row_seeds: np.ndarray, limit: int
) -> np.ndarray:
    """Return the indices of at most `limit` pairs a row, each subset of a row's pairs being equally likely.

    A pair's place in its row's random order comes from the row's seed and the pair alone: it depends neither on the
    order of the rows nor on the other pairs, and a lower limit keeps a part of what a higher one keeps.

    Args:
        row: (pairs,) the row of each pair.
        chosen: (pairs,) its chosen completion.
        rejected: (pairs,) its rejected completion.
        row_seeds: (rows,) uint64 seeds, see `prompt_seeds`.
        limit: At least 1.
    """
    drawn = pair_draws(row_seeds, row, chosen, rejected)
    return first_of_each(row, np.lexsort((drawn, row)), limit)
