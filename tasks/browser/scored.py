"""A run's completions with rewards, part by part, as rows for the index."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.browser.repeats import repeated_share
from tasks.rewards.candidates import COLUMNS, gather
from tasks.rewards.scored import read_scored
from tasks.selection.pairs import Candidates
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import read_slices, read_whole_prompts

READ = [*COLUMNS, "token_ids"]


def scored_parts(
    store: Store, completions: Artifact, rewards: Artifact | None
) -> Iterator[tuple[Candidates, pa.Table]]:
    """Yield the completions of some prompts at a time, as candidates and as rows.

    The rows have `number` (of the prompt among the candidates), `completion_id`, `completion`, `num_tokens`,
    `truncated`, `repeats` and `reward`, which is null where there is none.
    """
    for drawn, scores in _tables(store, completions, rewards):
        if drawn.num_rows:
            candidates = gather(drawn, scores)
            yield candidates, _rows(drawn, candidates)


def _tables(store: Store, completions: Artifact, rewards: Artifact | None) -> Iterator[tuple[pa.Table, pa.Table]]:
    if rewards is not None:
        yield from read_scored(store, completions, rewards, READ)
        return
    for drawn in read_whole_prompts(read_slices(store, completions), READ):
        none = pa.array(np.full(drawn.num_rows, np.nan, np.float32))
        ids = [drawn["prompt_id"], drawn["completion_id"], none]
        yield drawn, pa.table(ids, schema=SCHEMAS["rewards"])


def _rows(drawn: pa.Table, candidates: Candidates) -> pa.Table:
    number = pc.index_in(drawn["prompt_id"], candidates.prompt_ids).to_numpy()
    completion_id = drawn["completion_id"].to_numpy()
    reward = candidates.rewards[number, completion_id]
    return pa.table(
        {
            "number": number.astype(np.int64),
            "completion_id": completion_id,
            "completion": drawn["completion"],
            "num_tokens": drawn["num_tokens"],
            "truncated": pc.equal(drawn["finish_reason"], "length"),
            "repeats": repeated_share(drawn["token_ids"]),
            "reward": pa.array(reward, mask=np.isnan(reward)),
        }
    )
