"""Which pairs of a prompt stay where it has more than `pairs.max_pairs_per_prompt`. Pure numpy.

The threshold rule keeps hard pairs on purpose: those whose gap is just above it. A cap that takes the widest gaps drops
just these, so the default takes a random subset.
"""

import hashlib
from collections.abc import Sequence

import numpy as np


def first_of_each(row: np.ndarray, order: np.ndarray, limit: int) -> np.ndarray:
    """Return the indices, ascending, of the first `limit` pairs of each row in an order.

    Args:
        row: (pairs,) the row, that is the prompt, of each pair.
        order: (pairs,) indices of all pairs, rows ascending and within a row those to keep first.
        limit: At least 1.
    """
    rows = row[order]
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    rank = np.arange(rows.size) - np.repeat(starts, np.diff(np.r_[starts, rows.size]))
    return np.sort(order[rank < limit])


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
    pair = (chosen.astype(np.uint64) << np.uint64(32)) | rejected.astype(np.uint64)
    drawn = _mix(row_seeds[row] ^ _mix(pair))
    return first_of_each(row, np.lexsort((drawn, row)), limit)


def prompt_seeds(seed: int, prompt_ids: Sequence[str]) -> np.ndarray:
    """Return a seed a prompt, (prompts,) uint64: 64 bits of the SHA-256 of the run's seed and the prompt_id."""
    hashes = (hashlib.sha256(f"pairs:{seed}:{id_}".encode()).digest()[:8] for id_ in prompt_ids)
    return np.frombuffer(b"".join(hashes), "<u8")


def _mix(values: np.ndarray) -> np.ndarray:
    """Spread every bit of uint64 over all: the output function of SplitMix64 (doi:10.1145/2660193.2660195)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed
