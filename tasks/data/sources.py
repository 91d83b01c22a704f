"""Open data: the rows of a `DataSource`, one at a time, each with the place it came from. Writes nothing."""

import functools
import hashlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from fsspec import AbstractFileSystem

from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.data.data_files import Chosen, choose_files
from tasks.data.readers import BUFFER, ENDINGS, Row, file_rows, reader
from tasks.store.filesystem import as_meant, open_fs

if TYPE_CHECKING:
    from datasets import Dataset

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class _Found(NamedTuple):
    """The files of a source that are read, and those beside them that are not."""

    fs: AbstractFileSystem
    files: Chosen


def read_rows(source: DataSource) -> Iterator[Row]:
    """Return the rows of a source, each with its place, such as "prompts.jsonl line 12" or "pairs.parquet row 7".

    The source is found and its first row read before this returns; later rows are read as they are asked for, and
    raise the same errors.

    Raises:
        ConfigurationError: There is no such file, folder, bucket or hub dataset; it cannot be read, has no such
            configuration or split, holds no rows, or a row is damaged.
    """
    found = _find_files(source)
    if found is None:
        rows = _hub_rows(source)
    else:
        rows = chain.from_iterable(file_rows(found.fs, path) for path in found.files.paths)
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
    digest = hashlib.sha256()
    for block in _blocks(found):
        digest.update(block)
    return digest.hexdigest()


def unread_files(source: DataSource) -> list[str]:
    """Return the files of a folder that are not read: other splits, and files that are no data.

    Raises:
        ConfigurationError: As `source_digest`.
    """
    found = _find_files(source)
    return found.files.unread if found else []


def _blocks(found: _Found) -> Iterator[bytes]:
    """Yield the content of files, one after another, some bytes at a time."""
    for path in found.files.paths:
        with found.fs.open(path, "rb") as file:
            yield from iter(functools.partial(file.read, BUFFER), b"")


def _find_files(source: DataSource) -> _Found | None:
    """Return the files of a source in the order of their names; None where it can only be a hub dataset."""
    if "@" in source.path.partition("://")[2].partition("/")[0]:
        raise ConfigurationError(
            "a data source must not carry credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    fs, path = open_fs(as_meant(source.path))
    try:
        with _explained_access(source.path):
            is_file = fs.info(path)["type"] == "file"
            _refuse_settings(source, is_file)
            files = Chosen([path], []) if is_file else choose_files(fs, path, source)
    except FileNotFoundError as error:
        if _HUB_ID.fullmatch(source.path) and not source.path.lower().endswith(ENDINGS):
            return None
        remedy = "check the bucket and the key" if source.path.startswith("s3://") else "check the path"
        raise ConfigurationError(f"there is no file or folder {source.path} (looked for {path}): {remedy}") from error
    if is_file:
        reader(path)
    return _Found(fs, files)


def _refuse_settings(source: DataSource, is_file: bool) -> None:
    """Refuse settings that choose nothing here."""
    if source.revision is not None:
        raise ConfigurationError(
            f"revision = {source.revision!r} is for hub datasets, but {source.path} is a file or folder: leave it out"
        )
    given = {"name": source.name, "data_dir": source.data_dir, "split": source.split}
    defaults = (None, DataSource.model_fields["split"].default)
    if chosen := [name for name, value in given.items() if is_file and value not in defaults]:
        raise ConfigurationError(
            f"{chosen[0]} = {given[chosen[0]]!r} is for folders and hub datasets, but {source.path} is a file: "
            "leave it out"
        )


@contextmanager
def _explained_access(path: str) -> Iterator[None]:
    """Say what to check where access is refused."""
    try:
        yield
    except _refusals() as error:
        remedy = "check its permissions"
        if path.startswith("s3://"):
            remedy = "set or check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_ENDPOINT_URL"
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__}): {remedy}") from error


def _refusals() -> tuple[type[Exception], ...]:
    """Return what is raised where access is refused; S3 raises nothing before its library is imported."""
    if "botocore" not in sys.modules:
        return (PermissionError,)
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    return (PermissionError, NoCredentialsError, PartialCredentialsError)


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
