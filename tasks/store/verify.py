"""Files of committed folders, compared with the manifest's entries as they are read."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tasks.store.artifacts import Content, DamagedArtifactError, FileEntry
from tasks.store.filesystem import open_fs, persist, read_chunks
from tasks.store.hashed import forget, recall, remember
from tasks.store.listing import size_and_tag

T = TypeVar("T")
PIECE = 50 << 20
"""Bytes that s3fs uploads at once; what has two of them or more goes up in pieces."""


def read_entry(uri: str, entry: FileEntry) -> bytes:
    """Return the content of a file of the folder at a URI.

    Raises:
        DamagedArtifactError: The file is missing or differs from its entry.
        StoreError: The store cannot be read.
    """
    return read_with(uri, entry, b"".join)


def read_with(uri: str, entry: FileEntry, consume: Callable[[Iterator[bytes]], T]) -> T:
    """Pass the pieces of a file to a function, and return its result once they are known to match the entry.

    Args:
        uri: The folder.
        entry: The file.
        consume: Called anew, with the first piece again, where the file has to be read again.

    Raises:
        DamagedArtifactError: The file is missing or differs from its entry.
        StoreError: The store cannot be read.
    """
    where = f"{uri}/{entry.path}"
    fs, path = open_fs(where)

    def attempt() -> T:
        sha256 = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for chunk in read_chunks(fs, path, entry.size):
                sha256.update(chunk)
                yield chunk

        result = consume(hashed())
        if sha256.hexdigest() != entry.sha256:
            forget(where)  # else look-ups would go on taking the file for what it was
            raise DamagedArtifactError(f"{where} does not match the hash in its manifest; run again")
        return result

    try:
        return persist(attempt, where, "read")
    except FileNotFoundError as error:
        raise DamagedArtifactError(f"{where} is missing; run again") from error


def etag_of(content: Content) -> str:
    """Return the ETag that S3 gives to content that s3fs uploads: its MD5, or the MD5 of its pieces' MD5s.

    Where a server makes its ETags in another way, files are read to be compared.
    """
    if isinstance(content, Path):
        with content.open("rb") as file:
            return _etag(iter(lambda: file.read(PIECE), b""), content.stat().st_size)
    return _etag((content[start : start + PIECE] for start in range(0, len(content), PIECE)), len(content))


def _etag(pieces: Iterator[bytes], size: int) -> str:
    if size < 2 * PIECE:
        return hashlib.md5(b"".join(pieces), usedforsecurity=False).hexdigest()
    hashes = [hashlib.md5(piece, usedforsecurity=False).digest() for piece in pieces]
    return f"{hashlib.md5(b''.join(hashes), usedforsecurity=False).hexdigest()}-{len(hashes)}"


def verify(uri: str, entries: Iterable[FileEntry]) -> None:
    """Compare files with the manifest: by what is known of them, or by reading what this machine has not read before.

    Raises:
        DamagedArtifactError: A file is missing or differs from its entry.
        StoreError: The store cannot be read.
    """
    for entry in entries:
        tag = _find_file(uri, entry)
        if (entry.etag and tag == entry.etag) or recall(f"{uri}/{entry.path}", entry.size, tag) == entry.sha256:
            continue
        read_with(uri, entry, lambda chunks: deque(chunks, maxlen=0))
        remember(f"{uri}/{entry.path}", entry.size, tag, entry.sha256)


def _find_file(uri: str, entry: FileEntry) -> str:
    """Return the tag of a file, whose size is checked."""
    where = f"{uri}/{entry.path}"
    fs, path = open_fs(where)

    def attempt() -> str:
        size, tag = size_and_tag(fs, path)
        if size != entry.size:
            raise DamagedArtifactError(f"{where} has {size} bytes instead of {entry.size}; run again")
        return tag

    try:
        return persist(attempt, where, "read")
    except FileNotFoundError as error:
        raise DamagedArtifactError(f"{where} is missing; run again") from error
