"""Stored tables as Parquet: written with the schema of their kind, read verified."""

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from tasks.store.artifacts import Artifact, DamagedArtifactError, FileEntry
from tasks.store.filesystem import CHUNK, open_fs, persist
from tasks.store.manifests import read_bytes, read_files
from tasks.store.schemas import SCHEMAS, add_digests, format_digest, rows_digest
from tasks.store.verify import read_entry, read_with

ROWS_PER_FILE, TEXT_PER_FILE = 50_000, 1 << 28
"""Most rows of a file of conversations, and most characters: an Arrow array holds 2 GB of text."""
ROWS_AT_ONCE = 1 << 10
"""Rows that are Python objects at once where a table is read row by row."""


def read_tables(artifact: Artifact, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield a table's Parquet files in order, each verified and cast to its schema.

    Args:
        artifact: The table.
        columns: Decode these alone, in this order; None: all. Whole files are verified either way.

    Raises:
        DamagedArtifactError: A file is missing or differs from the manifest.
        StoreError: The store cannot be read.
    """
    schema = _none_of(artifact.kind, columns).schema
    for entry in _parquet_files(artifact):
        content = pa.BufferReader(read_entry(artifact.uri, entry))
        yield pq.read_table(content, columns=columns).cast(schema)


def read_table(artifact: Artifact, columns: list[str] | None = None) -> pa.Table:
    """Return all rows of a table, verified; `columns` as for `read_tables`."""
    return pa.concat_tables([_none_of(artifact.kind, columns), *read_tables(artifact, columns)])


def stored_rows(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table in order, verified, a file in memory at a time and few rows as Python objects."""
    for table in read_tables(artifact):
        yield from rows_of(table)


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table in order, few of them as Python objects at once."""
    for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
        yield from batch.to_pylist()


def read_file(artifact: Artifact, name: str, kind: str) -> pa.Table:
    """Return one Parquet file of an artifact, verified, of a kind of table that lies beside what the artifact is.

    Raises:
        DamagedArtifactError: The file is missing or differs from the manifest.
    """
    return pq.read_table(pa.BufferReader(read_bytes(artifact, name))).cast(SCHEMAS[kind])


def read_columns(artifact: Artifact, names: list[str]) -> pa.Table:
    """Return some columns of a table that has been verified before, as `Store.find` does.

    Only the pages of the columns are decoded; of a file on S3 that takes several requests, only these are read. Every
    other file is compared with its hash: a look-up trusts its times, and what a disk has lost shows in none.

    Raises:
        DamagedArtifactError: A file is missing, or cannot be decoded.
        StoreError: The store cannot be read.
    """
    nothing = _none_of(artifact.kind, names)
    tables = (_columns_of(artifact.uri, entry, names) for entry in _parquet_files(artifact))
    return pa.concat_tables([nothing, *(table.cast(nothing.schema) for table in tables)])


def table_bytes(table: pa.Table, kind: str) -> bytes:
    """Return a table as Parquet (zstd) with the schema of its kind."""
    schema, sink = SCHEMAS[kind], pa.BufferOutputStream()
    rows = table.select(schema.names).cast(schema)
    pq.write_table(rows, sink, compression="zstd", use_dictionary=_dictionaries(schema))
    return bytes(sink.getvalue())


class Written(NamedTuple):
    """A table of conversations in local files."""

    files: dict[str, Path]
    """Name -> file."""
    rows: int
    digest: str
    """Of all rows."""


def write_conversations(rows: Iterable[dict[str, Any]], kind: str, folder: Path) -> Written:
    """Write rows with `messages` as Parquet files into a folder, the rows of one file in memory at a time.

    The name of the file that a prompt was read from, its `source`, is not what the prompt is, and not in the digest.
    """
    files, count, digests = {}, 0, []
    for number, table in enumerate(_pieces(rows, SCHEMAS[kind])):
        name = f"rows-{number:05d}.parquet"
        files[name] = folder / name
        files[name].write_bytes(table_bytes(table, kind))
        digests.append(rows_digest(table.drop_columns("source") if kind == "prompts" else table))
        count += table.num_rows
    return Written(files, count, format_digest(add_digests(digests)))


def _pieces(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Cut rows into tables of a file each; few rows are Python objects at once."""
    piece: list[pa.RecordBatch] = []
    waiting: list[dict[str, Any]] = []
    count = text = 0
    for row in rows:
        own = sum(len(message["content"]) for message in row["messages"])
        if count and (count == ROWS_PER_FILE or text + own > TEXT_PER_FILE):
            yield _table_of(piece, waiting, schema)
            piece, waiting, count, text = [], [], 0, 0
        elif len(waiting) == ROWS_AT_ONCE:
            piece.append(pa.RecordBatch.from_pylist(waiting, schema))
            waiting = []
        waiting.append(row)
        count, text = count + 1, text + own
    if count:
        yield _table_of(piece, waiting, schema)


def _table_of(piece: list[pa.RecordBatch], waiting: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table in one chunk, so that its file does not depend on how many were at once."""
    return pa.Table.from_batches([*piece, pa.RecordBatch.from_pylist(waiting, schema)]).combine_chunks()


def _dictionaries(schema: pa.Schema) -> bool | list[str]:
    """Return the columns that repeat themselves; floats hardly do, and zstd packs them better plain (pairs: by 30%)."""
    if any(pa.types.is_nested(field.type) for field in schema):
        return True  # Parquet names nested columns by paths
    return [field.name for field in schema if not pa.types.is_floating(field.type)]


def _none_of(kind: str, columns: list[str] | None) -> pa.Table:
    """Return a table of a kind, or some of its columns, without rows."""
    empty = SCHEMAS[kind].empty_table()
    return empty if columns is None else empty.select(columns)


def _parquet_files(artifact: Artifact) -> list[FileEntry]:
    return [entry for name, entry in read_files(artifact).items() if name.endswith(".parquet")]


def _columns_of(uri: str, entry: FileEntry, names: list[str]) -> pa.Table:
    if entry.size <= CHUNK:
        return pq.read_table(pa.BufferReader(read_entry(uri, entry)), columns=names)
    where = f"{uri}/{entry.path}"
    fs, path = open_fs(where)
    if isinstance(fs, LocalFileSystem):
        read_with(uri, entry, lambda chunks: deque(chunks, maxlen=0))

    def attempt() -> pa.Table:
        try:
            with fs.open(path, "rb", cache_type="none") as file:  # the default would read ahead, past the columns
                return pq.read_table(file, columns=names)
        except pa.ArrowInvalid as error:
            raise DamagedArtifactError(f"{where} cannot be decoded ({error}); run again") from error

    try:
        return persist(attempt, where, "read")
    except FileNotFoundError as error:
        raise DamagedArtifactError(f"{where} is missing; run again") from error
