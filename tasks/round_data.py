"""What rounds train on together: reads tables of several rounds, writes them as those of one.

Pairs stay within their round: the rewards of two reward models cannot be compared. So that both rounds' completions of
a prompt stand in one table, the ids of round n (from 0) are raised by n k.
"""

from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.config.sections import NOT_IN_KEY, Section
from tasks.data.prompt_table import PromptTable
from tasks.pipeline.stage import stage
from tasks.store.artifacts import Artifact
from tasks.store.cover import join_slices
from tasks.store.drafts import Draft
from tasks.store.manifests import read_bytes, read_files
from tasks.store.parquet import read_tables, table_bytes
from tasks.store.schemas import add_digests, format_digest, rows_digest
from tasks.store.scratch import scratch_folder
from tasks.store.slices import commit_slices, raise_ids, read_slices


class Found(Section):
    """What there was when a round was first begun."""

    preferences: Annotated[Artifact, NOT_IN_KEY]
    """Not in the key: a round that is begun again, after more was added, keeps what it had."""


@stage(version=1, given=lambda completions: completions[0] if len(completions) == 1 else None)
def join_completions(out: Draft, completions: list[Artifact], k: int) -> Artifact:
    """Take the completions of several rounds together, k a prompt and round. Rows are not copied."""
    slices = [
        slice_._replace(shift=number * k)
        for number, own in enumerate(completions)
        for slice_ in read_slices(out.store, own)
    ]
    return commit_slices(out, "completions", join_slices(slices), {"completions": [own.rows for own in completions]})


@stage(version=1, given=lambda pairs: pairs[0] if len(pairs) == 1 else None)
def join_pairs(out: Draft, pairs: list[Artifact], prompts: Artifact, k: int) -> Artifact:
    """Take the pairs of several rounds together; those of prompts that are not trained on any more are left out."""
    known = pa.array(PromptTable(prompts).ids, pa.string())
    with scratch_folder(out.provenance.key[:16]) as folder:
        kept = [_write_round(folder, number, own, known, k) for number, own in enumerate(pairs)]
        rows = [count for count, _ in kept]
        stats = {"pairs": rows, "left_out": sum(own.rows for own in pairs) - sum(rows)}
        files = {path.name: path for path in sorted(folder.iterdir())}
        digest = format_digest(add_digests(digest for _, digest in kept))
        return out.commit("pairs", files, digest, rows=sum(rows), stats=stats)


def _write_round(folder: Path, number: int, pairs: Artifact, known: pa.Array, k: int) -> tuple[int, int]:
    """Write the pairs of a round, a file at a time; return their number and their digest."""
    rows, digests = 0, []
    for file, table in enumerate(read_tables(pairs)):
        own = table.filter(pc.is_in(table["prompt_id"], known))
        own = raise_ids(own, ["chosen_id", "rejected_id"], number * k)
        (folder / f"rows-{number:03d}-{file:06d}.parquet").write_bytes(table_bytes(own, "pairs"))
        digests.append(rows_digest(own))
        rows += own.num_rows
    return rows, add_digests(digests)


@stage(version=1)
def keep_preferences(
    out: Draft, completions: Artifact, held_out: Artifact, history: dict[str, Any], found: Found
) -> Artifact:
    """Keep the preferences that a round begins with, so that a loop which is started again goes on where it was.

    Args:
        out: The output.
        completions: Those of the round: what tells it from the others.
        held_out: Prompts that nothing is trained on.
        history: What all rounds are configured by.
        found: The preferences, as the round was first begun.
    """
    given = found.preferences
    files = {name: read_bytes(given, name) for name in read_files(given)}
    return out.commit("preferences", files, given.digest, rows=given.rows, stats=given.stats)
