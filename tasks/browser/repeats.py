"""How much a completion repeats itself: the share of its 3-grams of tokens that it has had before. Pure numpy."""

import numpy as np
import pyarrow as pa

REPEATS = 0.3
"""A completion with a larger share repeats itself; ordinary text is far below."""
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
_HASH_BITS = np.uint64(40)


def repeated_share(token_ids: pa.ChunkedArray) -> np.ndarray:
    """Return, for each completion, the share of its 3-grams of tokens that occur earlier in it.

    3-grams are told apart by 40 bits of a hash within their completion.

    Args:
        token_ids: (n,) lists of ints.

    Returns:
        (n,) float32 in [0, 1); 0 where there are fewer than two 3-grams.
    """
    lists = token_ids.combine_chunks()
    if isinstance(lists, pa.ChunkedArray):  # of no chunk
        return np.zeros(0, np.float32)
    tokens = lists.flatten().to_numpy(zero_copy_only=False).astype(np.uint64)
    lengths = np.diff(lists.offsets.to_numpy())
    owner = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    if tokens.size < 3:
        return np.zeros(len(lengths), np.float32)
    inside = owner[:-2] == owner[2:]
    own = owner[:-2][inside]
    hashed = sum(tokens[start : tokens.size - 2 + start] * _FACTORS[start] for start in range(3))[inside]
    keys = np.sort((own << _HASH_BITS) | (hashed >> np.uint64(24)))
    total = np.bincount(own.astype(np.intp), minlength=len(lengths))
    first = np.r_[True, keys[1:] != keys[:-1]][: keys.size]
    distinct = np.bincount((keys[first] >> _HASH_BITS).astype(np.intp), minlength=len(lengths))
    share: np.ndarray = (total - distinct) / np.maximum(total, 1)
    return share.astype(np.float32)
