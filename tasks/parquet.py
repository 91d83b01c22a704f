"""Stored tables as Parquet: written with the schema of their kind, read verified."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.artifacts import Artifact, DamagedArtifactError, FileEntry
from tasks.filesystem import CHUNK, open_fs, persist
from tasks.schemas import SCHEMAS
from tasks.storage import read_files
from tasks.verify import read_entry


def read_tables(artifact: Artifact) -> Iterator[pa.Table]:
    """Yield a table's Parquet files in order, each verified and cast to its schema.

    Raises:
        DamagedArtifactError: A file is missing or differs from the manifest.
        StoreError: The store cannot be read.
    """
    for entry in _parquet_files(artifact):
        content = read_entry(artifact.uri, entry)
        yield pq.read_table(pa.BufferReader(content)).cast(SCHEMAS[artifact.kind])


def read_table(artifact: Artifact) -> pa.Table:
    """Return all rows of a table, verified."""
    return pa.concat_tables([SCHEMAS[artifact.kind].empty_table(), *read_tables(artifact)])


def read_column(artifact: Artifact, name: str) -> pa.ChunkedArray:
    """Return one column of a table that has been verified before, as `Store.find` does.

    Of a file that takes several requests, only the pages of the column are read.

    Raises:
        DamagedArtifactError: A file is missing, or cannot be decoded.
        StoreError: The store cannot be read.
    """
    columns = [_column_of(artifact.uri, entry, name) for entry in _parquet_files(artifact)]
    return pa.chunked_array(
        [chunk for column in columns for chunk in column.chunks], SCHEMAS[artifact.kind].field(name).type
    )


def table_bytes(table: pa.Table, kind: str) -> bytes:
    """Return a table as Parquet (zstd) with the schema of its kind."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.select(SCHEMAS[kind].names).cast(SCHEMAS[kind]), sink, compression="zstd")
    return bytes(sink.getvalue())


def _parquet_files(artifact: Artifact) -> list[FileEntry]:
    return [entry for name, entry in read_files(artifact).items() if name.endswith(".parquet")]


def _column_of(uri: str, entry: FileEntry, name: str) -> pa.ChunkedArray:
    if entry.size <= CHUNK:
        return pq.read_table(pa.BufferReader(read_entry(uri, entry)), columns=[name])[name]
    where = f"{uri}/{entry.path}"
    fs, path = open_fs(where)

    def attempt() -> pa.ChunkedArray:
        try:
            with fs.open(path, "rb", cache_type="none") as file:  # the default would read ahead, past the column
                return pq.read_table(file, columns=[name])[name]
        except pa.ArrowInvalid as error:
            raise DamagedArtifactError(f"{where} cannot be decoded ({error}); run again") from error

    try:
        return persist(attempt, where, "read")
    except FileNotFoundError as error:
        raise DamagedArtifactError(f"{where} is missing; run again") from error
