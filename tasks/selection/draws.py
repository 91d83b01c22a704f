"""What is drawn at random in a selection: numbers that come from the seed, the prompt and the pair alone. Pure numpy.

So no draw depends on the order of the prompts, on where their parts are cut, or on which other prompts there are.
"""

import hashlib
from collections.abc import Sequence

import numpy as np


def prompt_seeds(seed: int, prompt_ids: Sequence[str], purpose: str = "pairs") -> np.ndarray:
    """Return a seed a prompt, (prompts,) uint64: 64 bits of the SHA-256 of the purpose, the run's seed and the prompt.

    Args:
        seed: The run's, `pairs.seed`.
        prompt_ids: (prompts,) the prompts.
        purpose: What is drawn: draws of two purposes are independent.
    """
    hashes = (hashlib.sha256(f"{purpose}:{seed}:{id_}".encode()).digest()[:8] for id_ in prompt_ids)
    return np.frombuffer(b"".join(hashes), "<u8")


def pair_draws(row_seeds: np.ndarray, row: np.ndarray, chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """Return a number for each pair, (pairs,) uint64, uniform over all 64-bit numbers.

    Args:
        row_seeds: (rows,) uint64, see `prompt_seeds`.
        row: (pairs,) the row of each pair.
        chosen: (pairs,) its chosen completion.
        rejected: (pairs,) its rejected completion.
    """
    pair = (chosen.astype(np.uint64) << np.uint64(32)) | rejected.astype(np.uint64)
    return _mix(row_seeds[row] ^ _mix(pair))


def completion_draws(row_seeds: np.ndarray, k: int, turn: int = 0) -> np.ndarray:
    """Return a number for each of k completions of each row, (rows, k) uint64, uniform over all 64-bit numbers.

    Args:
        row_seeds: (rows,) uint64, see `prompt_seeds`.
        k: Completions.
        turn: Another turn gives other numbers.
    """
    places = (np.uint64(turn) << np.uint64(32)) | np.arange(k, dtype=np.uint64)
    return _mix(row_seeds[:, None] ^ _mix(places))


def _mix(values: np.ndarray) -> np.ndarray:
    """Spread every bit of uint64 over all: the output function of SplitMix64 (doi:10.1145/2660193.2660195)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed
