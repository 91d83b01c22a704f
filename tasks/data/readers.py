"""Read data files: the rows of each kind, one at a time, each with the place it came from. Writes nothing.

Memory does not grow with a file: JSON lines are read line by line, Parquet and Arrow batch by batch. Only a JSON file
that is one list of objects, or `{"data": [...]}`, is read whole, up to `WHOLE` bytes.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from tasks.config.errors import ConfigurationError

Row = tuple[str, dict[str, Any]]

WHOLE = 1 << 30
"""Most bytes of a JSON file that is not one object a line."""
BUFFER = 1 << 20
_BATCH = 256
_ONE_A_LINE = "write one object a line"
_DATA = re.compile(rb'\{\s*"data"\s*:\s*\[')
_SPACE = b"\xef\xbb\xbf \t\r\n"


def file_rows(fs: AbstractFileSystem, path: str) -> Iterator[Row]:
    """Yield the rows of a file, read as its name's ending says.

    Raises:
        ConfigurationError: The file is of no known kind, or damaged.
    """
    name = path.rsplit("/", 1)[-1]
    with fs.open(path, "rb") as file:
        yield from reader(path)(file, name)


def reader(path: str) -> Callable[[IO[bytes], str], Iterator[Row]]:
    """Return the reader for a file name's ending.

    Raises:
        ConfigurationError: The ending is of no known kind.
    """
    for suffix, read in _READERS.items():
        if path.lower().endswith(suffix):
            return read
    is_table = path.lower().endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz"))
    convert = '. Convert it: datasets.load_dataset("csv", data_files=NAME)["train"].to_json("data.jsonl")'
    raise ConfigurationError(
        f"{path} is of no known kind: its name must end in one of {', '.join(ENDINGS)}{convert if is_table else ''}"
    )


def is_description(fs: AbstractFileSystem, path: str) -> bool:
    """Return whether a JSON file is one object over several lines that does not begin with its rows."""
    with fs.open(path, "rb") as file:
        head = file.read(BUFFER).strip(_SPACE)
    line, newline, _ = head.partition(b"\n")
    return bool(newline) and head.startswith(b"{") and _begins_whole(line) and not _DATA.match(head)


def _json_rows(file: IO[bytes], name: str) -> Iterator[Row]:
    """Yield the objects of a JSON file: one a line, where blank lines count but hold nothing, or in one list."""
    with io.BufferedReader(file, BUFFER) as lines:  # type: ignore[type-var]
        numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip(_SPACE))
        begin = list(islice(numbered, 1))
        if begin and _begins_whole(begin[0][1]):
            yield from _listed_rows(begin[0][1] + lines.read(WHOLE + 1), begin[0][0], name)
            return
        begin += islice(numbered, 1)
        if len(begin) == 1 and _DATA.match(begin[0][1].strip(_SPACE)):
            yield from _listed_rows(begin[0][1], begin[0][0], name)
            return
        for number, line in chain(begin, numbered):
            where = f"{name} line {number}"
            yield where, _parse_line(line, where)


def _begins_whole(line: bytes) -> bool:
    """Return whether a file's first line begins a list, or an object that ends on another line."""
    line = line.strip(_SPACE)
    return line.startswith(b"[") or (line.startswith(b"{") and not line.endswith(b"}"))


def _listed_rows(content: bytes, number: int, name: str) -> Iterator[Row]:
    """Yield the objects of a file that is a list of them, or an object whose first entry is such a list, `data`."""
    if len(content) > WHOLE:
        raise ConfigurationError(f"{name} is one JSON value of more than {WHOLE} bytes: {_ONE_A_LINE}")
    value = _parse(content, f"{name} line {number}")
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise ConfigurationError(f"{name} is one JSON object over several lines, which is no row: {_ONE_A_LINE}")
    for place, row in enumerate(rows, 1):
        where = f"{name} row {place}"
        yield where, _checked_object(row, where)


def _parse_line(line: bytes, where: str) -> dict[str, Any]:
    """Return the object of a line."""
    return _checked_object(_parse(line, where), where)


def _parse(content: bytes, where: str) -> Any:
    """Return the value of JSON that may start with a byte order mark."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{where} is not JSON ({error}): {_ONE_A_LINE}, in UTF-8") from error


def _checked_object(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigurationError(f"{where} is a JSON {type(values).__name__}, not an object: {_ONE_A_LINE}")
    return values


def _gzip_rows(file: IO[bytes], name: str) -> Iterator[Row]:
    """Yield the objects of a compressed JSON-lines file."""
    try:
        with gzip.GzipFile(fileobj=file) as unzipped:
            yield from _json_rows(unzipped, name)  # type: ignore[arg-type]
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ConfigurationError(f"{name} is not gzip, or is cut short ({error}): compress or copy it again") from error


def _parquet_rows(file: IO[bytes], name: str) -> Iterator[Row]:
    """Yield the rows of a Parquet file."""
    with _explained_arrow(name, "Parquet"):
        batches = pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER).iter_batches(_BATCH)
        yield from _batch_rows(batches, name)


def _arrow_rows(file: IO[bytes], name: str) -> Iterator[Row]:
    """Yield the rows of a saved dataset's Arrow stream."""
    with _explained_arrow(name, "Arrow"), pa.ipc.open_stream(file) as batches:
        yield from _batch_rows(batches, name)


def _batch_rows(batches: Iterator[pa.RecordBatch], name: str) -> Iterator[Row]:
    """Yield the rows of batches, counted over all of them."""
    rows = chain.from_iterable(batch.to_pylist() for batch in batches)
    for number, values in enumerate(rows, 1):
        yield f"{name} row {number}", values


@contextmanager
def _explained_arrow(name: str, kind: str) -> Iterator[None]:
    """Turn pyarrow's errors about a file's content into one that says what to do."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        # pyarrow calls damaged pages a bare OSError; an error of a disk or a network has a number or its own class.
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        raise ConfigurationError(f"{name} is not {kind}, or is damaged ({error}): write or copy it again") from error


_READERS = {
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".jsonl.gz": _gzip_rows,
    ".json.gz": _gzip_rows,
    ".parquet": _parquet_rows,
    ".arrow": _arrow_rows,
}
ENDINGS = tuple(_READERS)
"""How the names of files end that are read."""
