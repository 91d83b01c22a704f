"""Stored tables as Parquet: written with the schema of their kind, read verified."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.artifacts import Artifact
from tasks.schemas import SCHEMAS
from tasks.storage import read_entry, read_files


def read_tables(artifact: Artifact) -> Iterator[pa.Table]:
    """Yield a table's Parquet files in order, each verified and cast to its schema.

    Raises:
        DamagedArtifactError: A file is missing or differs from the manifest.
    """
    for name, entry in read_files(artifact).items():
        if name.endswith(".parquet"):
            yield pq.read_table(pa.BufferReader(read_entry(artifact.uri, entry))).cast(SCHEMAS[artifact.kind])


def read_table(artifact: Artifact) -> pa.Table:
    """Return all rows of a table, verified."""
    return pa.concat_tables([SCHEMAS[artifact.kind].empty_table(), *read_tables(artifact)])


def table_bytes(table: pa.Table, kind: str) -> bytes:
    """Return a table as Parquet (zstd) with the schema of its kind."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.select(SCHEMAS[kind].names).cast(SCHEMAS[kind]), sink, compression="zstd")
    return bytes(sink.getvalue())
