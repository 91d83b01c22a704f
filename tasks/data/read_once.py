"""Prompts that two stages of a run read, parsed once.

The held-out prompts and the others lie in the same rows. What the first stage parses waits in a nameless file until the
second one takes it, or the process ends: it takes no memory, and no file is left.
"""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, Any, NamedTuple

import pyarrow as pa

from tasks.config.sections import DataSource
from tasks.data.records import Record
from tasks.data.tally import Parsed, parse_rows
from tasks.store.parquet import ROWS_AT_ONCE
from tasks.store.schemas import MESSAGES
from tasks.store.scratch import cache_folder

TEXTS = ("completion", "chosen", "rejected", "metadata")
"""What a row of prompts may have beside its conversation."""
SCHEMA = pa.schema(
    {"where": pa.string(), "reason": pa.string(), "messages": MESSAGES, **dict.fromkeys(TEXTS, pa.string())}
)


class Kept(NamedTuple):
    """Rows in a file, and the columns of theirs that were not read."""

    file: IO[bytes]
    unread: frozenset[str]


_KEPT: dict[tuple[str, str], Kept] = {}
"""The rows that wait, of one source at most: by what names the source, and the digest of its content."""


def parse_and_keep(source: DataSource, digest: str, unread: set[str]) -> Iterator[Parsed]:
    """Yield the rows of prompts as `parse_rows` does, and keep them for the next reader once all are read.

    Args:
        source: Where they are.
        digest: Of the source's content; "": not known, so that nothing is kept.
        unread: Takes the columns that are not read.
    """
    _KEPT.clear()
    parsed = parse_rows(source, "prompts", unread)
    if not digest:
        yield from parsed
        return
    cache_folder().mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile(dir=cache_folder()))
        yield from _written(parsed, file)
        _KEPT[_key(source, digest)] = Kept(file, frozenset(unread))
        stack.pop_all()  # whoever takes the rows closes the file


def take_or_parse(source: DataSource, digest: str, unread: set[str]) -> Iterator[Parsed]:
    """Yield the rows of prompts that were kept, which then are no more; parse them where none were.

    Args:
        source: Where they are.
        digest: Of the source's content.
        unread: Takes the columns that are not read.
    """
    kept = _KEPT.pop(_key(source, digest), None)
    if kept is None:
        yield from parse_rows(source, "prompts", unread)
        return
    unread |= kept.unread
    with kept.file as file:
        file.seek(0)
        for batch in pa.ipc.open_stream(file):
            yield from map(_parsed, batch.to_pylist())


def _written(rows: Iterable[Parsed], file: IO[bytes]) -> Iterator[Parsed]:
    """Yield rows, a batch of them once it is written: whoever takes them may put a message before their others."""
    waiting = iter(rows)
    with pa.ipc.new_stream(file, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        while batch := list(islice(waiting, ROWS_AT_ONCE)):
            writer.write_batch(pa.RecordBatch.from_pylist([_cells(row) for row in batch], SCHEMA))
            yield from batch


def _key(source: DataSource, digest: str) -> tuple[str, str]:
    return source.model_dump_json(), digest


def _cells(row: Parsed) -> dict[str, Any]:
    """Return a row as the file has it."""
    where, found = row
    if isinstance(found, str):
        return {"where": where, "reason": found}
    return {"where": where, "messages": found.messages, **{name: getattr(found, name) for name in TEXTS}}


def _parsed(cells: dict[str, Any]) -> Parsed:
    if cells["reason"] is not None:
        return cells["where"], cells["reason"]
    return cells["where"], Record(cells["messages"], **{name: cells[name] for name in TEXTS})
