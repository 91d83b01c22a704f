"""What a file system says of files that are not read: sizes, and tags that tell a content from an earlier one."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tasks.store.hashed import tag_of

SizeAndTag = tuple[int, str]
"""A file's size in bytes, and its tag: the ETag on S3, on a disk what `tag_of` makes of its times and inode."""


def size_and_tag(fs: fsspec.AbstractFileSystem, path: str) -> SizeAndTag:
    """Return the size and the tag of a file.

    Raises:
        FileNotFoundError: There is no such file.
    """
    return _of_stat(os.stat(path)) if isinstance(fs, LocalFileSystem) else _of_info(fs.info(path))


def list_files(fs: fsspec.AbstractFileSystem, folder: str) -> dict[str, SizeAndTag]:
    """Return path within a folder -> size and tag of each file in it and below: on S3, a request a thousand files.

    Files that are written or deleted meanwhile may be among them or not.
    """
    if isinstance(fs, LocalFileSystem):
        return dict(_walk(folder, ""))
    found = fs.find(folder, detail=True)
    return {path.removeprefix(folder).lstrip("/"): _of_info(info) for path, info in found.items()}


def _walk(folder: str, below: str) -> Iterator[tuple[str, SizeAndTag]]:
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


def _of_stat(stat: os.stat_result) -> SizeAndTag:
    return stat.st_size, tag_of(stat)


def _of_info(info: dict[str, Any]) -> SizeAndTag:
    # fsspec's file system in memory has no ETags.
    return info["size"], str(info.get("ETag") or info.get("created")).strip('"')
