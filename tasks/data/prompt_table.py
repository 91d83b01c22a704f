"""Prompts of a run by prompt_id, and the hash that splits them."""

import hashlib
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.conversations import Messages
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft, provenance_of
from tasks.store.folders import Store
from tasks.store.parquet import read_table, read_tables, table_bytes
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest

NO_PROMPTS = SCHEMAS["prompts"].empty_table().select(["prompt_id", "messages", "metadata"])


class PromptTable:
    """Prompts by prompt_id."""

    def __init__(self, prompts: Artifact, only: Collection[str] | None = None) -> None:
        """Read a prompts artifact: all of its prompts, or some, whose ids are given."""
        tables = read_tables(prompts, ["prompt_id", "messages", "metadata"])
        if only is not None:
            wanted = pa.array(only, pa.string())
            tables = (table.filter(pc.is_in(table["prompt_id"], wanted)) for table in tables)
        table = pa.concat_tables([NO_PROMPTS, *tables])
        self.ids: list[str] = table["prompt_id"].to_pylist()
        self._messages = table["messages"]  # in chunks, since an Arrow array holds no more than 2 GB of text
        self._metadata = table["metadata"]
        self._rows = {prompt_id: row for row, prompt_id in enumerate(self.ids)}

    def __contains__(self, prompt_id: str) -> bool:
        """Tell whether the prompt is in the table."""
        return prompt_id in self._rows

    def __getitem__(self, prompt_id: str) -> Messages:
        """Return the conversation of a prompt."""
        return list(self._messages[self._rows[prompt_id]].as_py())

    def metadata(self, prompt_id: str) -> str | None:
        """Return the JSON of a prompt's columns `metadata` and `id`; None where its row had neither."""
        text: str | None = self._metadata[self._rows[prompt_id]].as_py()
        return text


def reference_completions(prompts: Artifact) -> dict[str, str]:
    """Return prompt_id -> the completion that its row came with, of the prompts that have one."""
    table = pa.concat_tables(read_tables(prompts, ["prompt_id", "reference_completion"]))
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return {prompt_id: text for prompt_id, text in rows if text is not None}


def hash_fraction(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def shard_of(store: Store, prompts: Artifact, prompt_ids: Collection[str]) -> Artifact:
    """Return some of the prompts as an artifact of their own."""
    table = read_table(prompts)
    rows = table.filter(pc.is_in(table["prompt_id"], pa.array(prompt_ids, pa.string())))
    digest = format_digest(rows_digest(rows))
    draft = Draft(store, provenance_of("shard_prompts", 1, {"prompts": prompts, "rows": digest}))
    return draft.commit("prompts", {"rows.parquet": table_bytes(rows, "prompts")}, digest, rows=rows.num_rows)
