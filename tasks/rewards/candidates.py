"""Completions joined with their rewards, as arrays of a row a prompt: what pairs are selected from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.selection.pairs import Candidates
from tasks.store.artifacts import DamagedArtifactError

COLUMNS = ["prompt_id", "completion_id", "completion", "num_tokens", "finish_reason"]
"""What is read of the completions: not their tokens."""


class Grid:
    """Where completions and their rewards go in (n, k) arrays: a row a prompt, in order of the ids."""

    def __init__(self, completions: pa.Table, rewards: pa.Table) -> None:
        """Find the places of both, which need their `prompt_id` and `completion_id`.

        Raises:
            DamagedArtifactError: A completion has no reward, or a reward no completion.
        """
        ids = pc.unique(pa.chunked_array([*completions["prompt_id"].chunks, *rewards["prompt_id"].chunks]))
        self.prompt_ids = ids.take(pc.sort_indices(ids))
        self.drawn, self.scored = self._places(completions), self._places(rewards)
        self.k = 1 + max(self.drawn[1].max(), self.scored[1].max())
        self.is_drawn, is_scored = self.fill(self.drawn, True, False), self.fill(self.scored, True, False)
        for missing, column in ((self.is_drawn & ~is_scored, "reward"), (is_scored & ~self.is_drawn, "completion")):
            if missing.any():
                raise DamagedArtifactError(f"{missing.sum()} samples have no {column}: score the completions again")

    def fill(self, places: tuple[np.ndarray, np.ndarray], values: Any, elsewhere: float | bool) -> np.ndarray:
        """Return values as an (n, k) array, with something else where there is none."""
        filled = np.full((len(self.prompt_ids), self.k), elsewhere)
        filled[places] = values
        return filled

    def _places(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        return pc.index_in(table["prompt_id"], self.prompt_ids).to_numpy(), table["completion_id"].to_numpy()


def gather(completions: pa.Table, rewards: pa.Table) -> Candidates:
    """Join completions and rewards by (prompt_id, completion_id) into (n, k) arrays, prompts in order of their ids.

    Raises:
        DamagedArtifactError: A completion has no reward, or a reward no completion.
    """
    grid = Grid(completions, rewards)
    texts = completions["completion"].cast(pa.large_string()).dictionary_encode()  # int32 offsets end at 2 GB of text
    texts = texts.unify_dictionaries()
    truncated = pc.equal(completions["finish_reason"], "length")
    passes = rewards["passes"].to_numpy() if "passes" in rewards.column_names else True
    return Candidates(
        grid.prompt_ids,
        rewards=grid.fill(grid.scored, rewards["reward"].to_numpy(), np.nan),
        truncated=grid.fill(grid.drawn, truncated.to_numpy(), False),
        lengths=grid.fill(grid.drawn, completions["num_tokens"].to_numpy(), 0),
        texts=grid.fill(grid.drawn, np.concatenate([chunk.indices for chunk in texts.chunks]), -1),
        distinct_texts=texts.chunks[0].dictionary,
        may_be_chosen=grid.is_drawn & grid.fill(grid.scored, passes, False),
        terms={name: grid.fill(grid.scored, values, np.nan) for name, values in named_values(rewards, "terms").items()},
    )


def named_values(rewards: pa.Table, column: str) -> dict[str, np.ndarray]:
    """Return what a column of maps holds, name -> (rows,) float64, NaN for null; nothing where there is no such column.

    Every row names the same, in the same order.
    """
    if column not in rewards.column_names or not rewards.num_rows:
        return {}
    maps = rewards[column].combine_chunks()
    names = [name for name, _ in maps[0].as_py()]
    values = maps.items.cast(pa.float64()).to_numpy(zero_copy_only=False).reshape(rewards.num_rows, len(names))
    return dict(zip(names, values.T, strict=True))


def as_maps(values: Mapping[str, np.ndarray], rows: int) -> pa.Array:
    """Return (rows,) values by name as a column of maps; null for NaN."""
    names = pa.array(list(values) * rows, pa.string())
    flat = np.stack(list(values.values()), axis=1).ravel().astype(np.float32)
    return pa.MapArray.from_arrays(
        np.arange(rows + 1, dtype=np.int32) * len(values), names, pa.array(flat, mask=np.isnan(flat))
    )
