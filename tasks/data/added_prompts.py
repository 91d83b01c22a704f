"""Prompts that keep coming: a table in the store, read by runs whose `data.prompts` is `added`."""

from collections.abc import Iterator

from tasks.data.added_rows import AddedRows
from tasks.data.records import Record
from tasks.data.tally import Tally
from tasks.store.artifacts import Artifact

TABLE_VERSION = 1
ADDED_PROMPTS = AddedRows("prompts", "prompts", TABLE_VERSION, "prompt_id")


def read_added_prompts(added: Artifact, tally: Tally) -> Iterator[tuple[str, Record]]:
    """Yield place and content of each added prompt.

    Raises:
        DamagedArtifactError: See `AddedRows.read`.
    """
    for row in ADDED_PROMPTS.read(added):
        tally.total += 1
        where = f"{row['source']} prompt {row['prompt_id']}"
        yield where, Record(row["messages"], row["reference_completion"], metadata=row["metadata"])
