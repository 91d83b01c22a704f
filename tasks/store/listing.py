"""What a file system says of files that are not read: sizes, and tags that tell a content from an earlier one."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tasks.store.hashed import tag_of

Told = tuple[int, str]
"""A file's size and its tag: the ETag on S3, else what `tag_of` makes of it."""


def size_and_tag(fs: fsspec.AbstractFileSystem, path: str) -> Told:
    """Return what is told of a file.

    Raises:
        FileNotFoundError: There is no such file.
    """
    return _of_stat(os.stat(path)) if isinstance(fs, LocalFileSystem) else _of_info(fs.info(path))


def list_files(fs: fsspec.AbstractFileSystem, folder: str) -> dict[str, Told]:
    """Return what is told of every file in a folder and below, by its path within: on S3, a request a thousand files.

    Files that are written or deleted meanwhile may be among them or not.
    """
    if isinstance(fs, LocalFileSystem):
        return dict(_walk(folder, ""))
    found = fs.find(folder, detail=True)
    return {path.removeprefix(folder).lstrip("/"): _of_info(info) for path, info in found.items()}


def _walk(folder: str, below: str) -> Iterator[tuple[str, Told]]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry.path, f"{below}{entry.name}/")
            continue
        with suppress(FileNotFoundError):
            yield below + entry.name, _of_stat(entry.stat())


def _of_stat(stat: os.stat_result) -> Told:
    return stat.st_size, tag_of(stat)


def _of_info(info: dict[str, Any]) -> Told:
    return info["size"], str(info.get("ETag") or info.get("created")).strip('"')
