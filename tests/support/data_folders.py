"""Folders of data files whose one row names them."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.data.sources import read_rows, source_digest


def make(folder, *names, **files):
    """Write data files whose one row names them, and other files with the content that is given."""
    for name in names:
        row = {"prompt": name}
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist([row]), path)
        else:
            line = json.dumps(row).encode() + b"\n"
            path.write_bytes(gzip.compress(line) if name.endswith(".gz") else line)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def read(folder, **fields):
    return [row["prompt"] for _, row in read_rows(DataSource(path=str(folder), **fields))]


def refused(folder, **fields):
    with pytest.raises(ConfigurationError) as caught:
        read(folder, **fields)
    with pytest.raises(ConfigurationError):
        source_digest(DataSource(path=str(folder), **fields))
    return str(caught.value)
