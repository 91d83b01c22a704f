"""What the stages that load data share: the system message, the rule on held-out prompts, the commit."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tasks.config.data import DataConfig
from tasks.data.contamination import SHARES_WORDS, Overlap
from tasks.data.conversations import Messages
from tasks.data.prompt_table import hash_fraction
from tasks.data.records import Record
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft
from tasks.store.parquet import Written, read_table, stored_rows, write_conversations
from tasks.store.scratch import scratch_folder

HELD_OUT_FIELDS = ("evaluation_prompts", "evaluation_fraction", "system_prompt", "max_bad_fraction")
EXAMPLE_FIELDS = (*HELD_OUT_FIELDS, "decontaminate")
PREFERENCE_FIELDS = (*EXAMPLE_FIELDS, "consensus")
PROMPT_FIELDS = (*EXAMPLE_FIELDS, "max_prompts")
"""Fields of the data section that decide which held-out prompts, examples, preferences and prompts are loaded."""

LeaveOut = Callable[[str, str, Messages], str | None]
"""Returns the reason to leave out a prompt, given its prompt_id, its place and its conversation; None: keep it."""


def instruct(records: Iterator[tuple[str, Record]], data: DataConfig) -> Iterator[tuple[str, Record]]:
    """Yield records with the configured system message put before conversations that have none."""
    for where, record in records:
        if data.system_prompt and record.messages[0]["role"] != "system":
            record.messages.insert(0, {"role": "system", "content": data.system_prompt})
        yield where, record


def held_out_rule(held_out: Artifact, data: DataConfig) -> LeaveOut:
    """Return the rule on what is never trained on: held-out prompts, and prompts that share their words."""
    ids = frozenset(read_table(held_out, ["prompt_id"])["prompt_id"].to_pylist())
    share = 0.0 if data.evaluation_prompts else data.evaluation_fraction
    shared = Overlap(stored_rows(held_out), data.decontaminate) if data.decontaminate else None

    def leave_out(id_: str, where: str, messages: Messages) -> str | None:
        if id_ in ids or hash_fraction(id_) < share:
            return "held out for evaluation"
        return SHARES_WORDS if shared is not None and shared.found(where, messages) else None

    return leave_out


class LaidOut(NamedTuple):
    """A table of conversations that is written, and not committed yet."""

    out: Draft
    kind: str
    written: Written

    @property
    def rows(self) -> int:
        """Return the number of its rows."""
        return self.written.rows

    def commit(self, stats: dict[str, Any]) -> Artifact:
        """Commit it with its stats."""
        files, rows, digest = self.written
        return self.out.commit(self.kind, files, digest, rows=rows, stats=stats)


@contextmanager
def laid_out(out: Draft, kind: str, rows: Iterable[dict[str, Any]]) -> Iterator[LaidOut]:
    """Write rows into a working folder, the rows of one file in memory at a time, so that they can be committed.

    What is counted while the rows are read, and so stands in the stats, is known by then.
    """
    with scratch_folder(out.provenance.key[:16]) as folder:
        yield LaidOut(out, kind, write_conversations(rows, kind, folder))


def commit_rows(out: Draft, kind: str, rows: Iterable[dict[str, Any]], stats: dict[str, Any]) -> Artifact:
    """Commit the rows of a table of conversations, under stats that are known before they are read."""
    with laid_out(out, kind, rows) as table:
        return table.commit(stats)
