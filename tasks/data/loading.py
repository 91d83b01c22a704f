"""What the stages that load data share: the system message, the rule on held-out prompts, the commit."""

from collections.abc import Callable, Iterator
from typing import Any

from tasks.config.settings import DataConfig
from tasks.data.prompt_table import hash_fraction
from tasks.data.records import Record
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft
from tasks.store.parquet import conversation_files, read_table
from tasks.store.schemas import format_digest

EXAMPLE_FIELDS = ("evaluation_prompts", "evaluation_fraction", "system_prompt", "max_bad_fraction")
PROMPT_FIELDS = (*EXAMPLE_FIELDS, "max_prompts")
"""Fields of the data section that decide which examples, and which prompts, are loaded from given data."""


def instruct(records: Iterator[tuple[str, Record]], data: DataConfig) -> Iterator[tuple[str, Record]]:
    """Yield records with the configured system message put before conversations that have none."""
    for where, record in records:
        if data.system_prompt and record.messages[0]["role"] != "system":
            record.messages.insert(0, {"role": "system", "content": data.system_prompt})
        yield where, record


def held_out_rule(held_out: Artifact, data: DataConfig) -> Callable[[str], str | None]:
    """Return a function that gives the reason to leave a prompt out of training, or None."""
    ids = frozenset(read_table(held_out)["prompt_id"].to_pylist())
    share = 0.0 if data.evaluation_prompts else data.evaluation_fraction
    return lambda id_: "held out for evaluation" if id_ in ids or hash_fraction(id_) < share else None


def commit_rows(out: Draft, kind: str, rows: list[dict[str, Any]], stats: dict[str, Any]) -> Artifact:
    """Commit the rows of a table of conversations."""
    files, digest = conversation_files(rows, kind)
    return out.commit(kind, files, format_digest(digest), rows=len(rows), stats=stats)
