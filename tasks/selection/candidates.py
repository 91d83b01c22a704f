"""What pairs are selected from: completions joined with their rewards, as arrays of a row a prompt."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.store.artifacts import DamagedArtifactError

COLUMNS = ["prompt_id", "completion_id", "completion", "finish_reason"]
"""What is read of the completions: not their tokens."""
Places = tuple[np.ndarray, np.ndarray]


class Candidates(NamedTuple):
    """The completions of some prompts as (n, k) arrays."""

    prompt_ids: pa.Array
    """(n,) strings."""
    rewards: np.ndarray
    """(n, k) float64; NaN where a sample is missing, or the reward model had no room for it."""
    truncated: np.ndarray
    """(n, k) bool: cut at max_new_tokens."""
    texts: np.ndarray
    """(n, k) int: equal numbers within a row are equal texts."""


def gather(completions: pa.Table, rewards: pa.Table) -> Candidates:
    """Join completions and rewards by (prompt_id, completion_id) into (n, k) arrays, prompts in order of their ids.

    Raises:
        DamagedArtifactError: A completion has no reward, or a reward no completion.
    """
    prompt_ids = pc.unique(pa.chunked_array([*completions["prompt_id"].chunks, *rewards["prompt_id"].chunks]))
    prompt_ids = prompt_ids.take(pc.sort_indices(prompt_ids))
    drawn, scored = _places(completions, prompt_ids), _places(rewards, prompt_ids)
    k = 1 + max(drawn[1].max(), scored[1].max())

    def matrix(places: Places, values: Any, elsewhere: float | bool) -> np.ndarray:
        filled = np.full((len(prompt_ids), k), elsewhere)
        filled[places] = values
        return filled

    is_drawn, is_scored = matrix(drawn, True, False), matrix(scored, True, False)
    for missing, column in ((is_drawn & ~is_scored, "reward"), (is_scored & ~is_drawn, "completion")):
        if missing.any():
            raise DamagedArtifactError(f"{missing.sum()} samples have no {column}: score the completions again")
    texts = completions["completion"].cast(pa.large_string()).dictionary_encode()  # int32 offsets end at 2 GB of text
    truncated = pc.equal(completions["finish_reason"], "length")
    return Candidates(
        prompt_ids,
        rewards=matrix(scored, rewards["reward"].to_numpy(), np.nan),
        truncated=matrix(drawn, truncated.to_numpy(), False),
        texts=matrix(drawn, np.concatenate([chunk.indices for chunk in texts.chunks]), -1),
    )


def _places(table: pa.Table, prompt_ids: pa.Array) -> Places:
    """Return where the rows of a table go: the place of the prompt, the number of the completion."""
    return pc.index_in(table["prompt_id"], prompt_ids).to_numpy(), table["completion_id"].to_numpy()
