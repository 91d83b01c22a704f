"""Open data files: the rows of a `DataSource`, one at a time, each with the place it came from. Writes nothing.

Memory does not grow with a file: JSON lines are read line by line, Parquet and Arrow batch by batch.
"""

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import NoCredentialsError, PartialCredentialsError
from fsspec import AbstractFileSystem

from tasks.errors import ConfigurationError
from tasks.filesystem import as_meant, open_fs
from tasks.sections import DataSource

if TYPE_CHECKING:
    from datasets import Dataset

Row = tuple[str, dict[str, Any]]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_HIDDEN = re.compile(r"/[._]")
_BUFFER = 1 << 20
_BATCH = 256


def read_rows(source: DataSource) -> Iterator[Row]:
    """Return the rows of a source, each with its place, such as "prompts.jsonl line 12" or "pairs.parquet row 7".

    The source is found and its first row read before this returns; later rows are read as they are asked for, and
    raise the same errors.

    Raises:
        ConfigurationError: There is no such file, folder, bucket or hub dataset; it cannot be read, has no such split,
            holds no rows, or a row is damaged.
    """
    found = _find_files(source)
    if found is None:
        rows = _hub_rows(source)
    else:
        fs, paths = found
        rows = chain.from_iterable(_file_rows(fs, path) for path in paths)
    with _explained_access(source.path):
        first = next(rows, None)
    if first is None:
        raise ConfigurationError(f"{source.path} holds no rows: it is empty. Name a source with at least one row")
    return chain([first], rows)


def source_digest(source: DataSource) -> str:
    """Return the sha256 of the source's content: equal wherever the files lie and whatever they are called.

    Several files are hashed one after the other, in the order of their names, as their concatenation would be. A hub
    dataset is hashed by its fingerprint and split.

    Raises:
        ConfigurationError: There is no such file, folder, bucket or hub dataset; it cannot be read, or has no such
            split.
    """
    found = _find_files(source)
    if found is None:
        return hashlib.sha256(f"{_load_hub(source)._fingerprint} {source.split}".encode()).hexdigest()
    fs, paths = found
    digest = hashlib.sha256()
    for path in paths:
        with fs.open(path, "rb") as file:
            while block := file.read(_BUFFER):
                digest.update(block)
    return digest.hexdigest()


def _find_files(source: DataSource) -> tuple[AbstractFileSystem, list[str]] | None:
    """Return the files of a source in the order of their names; None where it can only be a hub dataset."""
    if "@" in source.path.partition("://")[2].partition("/")[0]:
        raise ConfigurationError(
            "a data source must not carry credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    fs, path = open_fs(as_meant(source.path))
    try:
        with _explained_access(source.path):
            is_file = fs.info(path)["type"] == "file"
            paths = [path] if is_file else _folder_files(fs, path, source.split)
    except FileNotFoundError as error:
        if _HUB_ID.fullmatch(source.path) and not source.path.lower().endswith(tuple(_READERS)):
            return None
        remedy = "check the bucket and the key" if source.path.startswith("s3://") else "check the path"
        raise ConfigurationError(f"there is no file or folder {source.path} (looked for {path}): {remedy}") from error
    for field in ("name", "data_dir", "revision"):
        if getattr(source, field) is not None:
            raise ConfigurationError(
                f"{field} = {getattr(source, field)!r} is for hub datasets, but {source.path} is a file or folder: "
                "leave it out, or make it part of the path"
            )
    if is_file:
        _reader(path)
    return fs, paths


@contextmanager
def _explained_access(path: str) -> Iterator[None]:
    """Say what to check where access is refused."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError, PermissionError) as error:
        remedy = "check its permissions"
        if path.startswith("s3://"):
            remedy = "set or check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_ENDPOINT_URL"
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__}): {remedy}") from error


def _folder_files(fs: AbstractFileSystem, root: str, split: str) -> list[str]:
    """Return the data files of a folder, or of a split of a dataset saved there."""
    root = root.rstrip("/")
    if fs.exists(f"{root}/dataset_dict.json"):
        splits = _read_json(fs, f"{root}/dataset_dict.json", lambda info: list(info["splits"]))
        if split not in splits:
            raise ConfigurationError(f"{root} has no split {split!r}: set split to one of {', '.join(splits)}")
        root = f"{root}/{split}"
    if fs.exists(f"{root}/state.json") and fs.exists(f"{root}/dataset_info.json"):
        # A dataset without splits was saved as a whole, so that the split has nothing to choose.
        names = _read_json(fs, f"{root}/state.json", lambda state: [file["filename"] for file in state["_data_files"]])
        if strange := [name for name in names if "/" in name]:
            raise ConfigurationError(
                f"{root}/state.json names {strange[0]!r}, which is not in its folder: save the data again"
            )
        return [f"{root}/{name}" for name in sorted(names)]
    inside = [path.removeprefix(root) for path in sorted(fs.find(root))]
    paths = [root + name for name in inside if name.lower().endswith(tuple(_READERS)) and not _HIDDEN.search(name)]
    if not paths:
        raise ConfigurationError(f"{root} holds no data files: looked for {', '.join(_READERS)} and saved datasets")
    return paths


def _read_json(fs: AbstractFileSystem, path: str, pick: Callable[[Any], list[str]]) -> list[str]:
    """Return what to pick from a saved dataset's description."""
    try:
        return pick(json.loads(fs.cat_file(path)))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} does not describe a saved dataset: save the dataset again") from error


def _file_rows(fs: AbstractFileSystem, path: str) -> Iterator[Row]:
    """Yield the rows of a file, read as its name's ending says."""
    name = path.rsplit("/", 1)[-1]
    with fs.open(path, "rb") as file:
        yield from _reader(path)(file, name)


def _reader(path: str) -> Callable[[IO[bytes], str], Iterator[Row]]:
    """Return the reader for a file name's ending."""
    for suffix, reader in _READERS.items():
        if path.lower().endswith(suffix):
            return reader
    raise ConfigurationError(f"{path} is of no known kind: its name must end in one of {', '.join(_READERS)}")


def _json_rows(file: IO[bytes], name: str) -> Iterator[Row]:
    """Yield the objects of a JSON-lines file; blank lines count but hold nothing."""
    with io.BufferedReader(file, _BUFFER) as lines:  # type: ignore[type-var]
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"{name} line {number}"
                yield where, _parse_line(line, where)


def _parse_line(line: bytes, where: str) -> dict[str, Any]:
    """Return the object of a line, which may start with a byte order mark."""
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{where} is not JSON ({error}): write one object a line, in UTF-8") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{where} is a JSON {type(values).__name__}, not an object: write one object a line")
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
        batches = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER).iter_batches(_BATCH)
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
    """Turn pyarrow's errors about a file's content into one plain ValueError."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        # pyarrow calls damaged pages a bare OSError; an error of a disk or a network has a number or its own class.
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        raise ConfigurationError(f"{name} is not {kind}, or is damaged ({error}): write or copy it again") from error


def _hub_rows(source: DataSource) -> Iterator[Row]:
    """Yield the rows of a hub dataset."""
    for number, values in enumerate(_load_hub(source), 1):
        yield f"{source.path} ({source.split}) row {number}", values


def _load_hub(source: DataSource) -> "Dataset":
    """Load a dataset from the Hugging Face hub, or from its local cache."""
    import datasets  # takes a second

    try:
        return datasets.load_dataset(
            source.path, source.name, data_dir=source.data_dir, split=source.split, revision=source.revision
        )
    except OSError as error:
        raise ConfigurationError(
            f"{source.path} is neither a local file or folder nor a dataset that the hub could give ({error}): check "
            "the name; with HF_HUB_OFFLINE=1, or without a network, only datasets in the local cache are found"
        ) from error
    except (ValueError, datasets.exceptions.DatasetsError) as error:
        raise ConfigurationError(f"{source.path} on the hub, split {source.split!r}: {error}") from error


_READERS = {
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".jsonl.gz": _gzip_rows,
    ".parquet": _parquet_rows,
    ".arrow": _arrow_rows,
}
