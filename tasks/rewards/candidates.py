"""Completions joined with their rewards, as arrays of a row a prompt: what pairs are selected from."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.selection.pairs import Candidates
from tasks.store.artifacts import DamagedArtifactError

COLUMNS = ["prompt_id", "completion_id", "completion", "num_tokens", "finish_reason"]
"""What is read of the completions: not their tokens."""
Places = tuple[np.ndarray, np.ndarray]


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
    texts = texts.unify_dictionaries()
    truncated = pc.equal(completions["finish_reason"], "length")
    return Candidates(
        prompt_ids,
        rewards=matrix(scored, rewards["reward"].to_numpy(), np.nan),
        truncated=matrix(drawn, truncated.to_numpy(), False),
        lengths=matrix(drawn, completions["num_tokens"].to_numpy(), 0),
        texts=matrix(drawn, np.concatenate([chunk.indices for chunk in texts.chunks]), -1),
        distinct_texts=texts.chunks[0].dictionary,
        may_be_chosen=is_drawn,
    )


def _places(table: pa.Table, prompt_ids: pa.Array) -> Places:
    """Return where the rows of a table go: the place of the prompt, the number of the completion."""
    return pc.index_in(table["prompt_id"], prompt_ids).to_numpy(), table["completion_id"].to_numpy()
