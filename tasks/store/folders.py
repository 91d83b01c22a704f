"""The object store: committed folders in a file system or S3, over tasks/store/filesystem.py.

A folder is complete when its `manifest.json` exists: it is written last, lists every file with size and hash, and names
the content-addressed subfolder that holds them. Two writers of one folder therefore never mix: each writes its own
subfolder, and the manifest that stands names one of them.
"""

import os
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

from tasks.config.errors import ConfigurationError
from tasks.store.artifacts import (
    MANIFEST,
    Artifact,
    Content,
    DamagedArtifactError,
    FileEntry,
    Manifest,
    hashes_digest,
    is_safe,
    library_versions,
    safe_path,
    sha256_of,
)
from tasks.store.filesystem import (
    as_meant,
    explain,
    file_uri,
    in_parallel,
    open_fs,
    persist,
    remove,
    store_errors,
    write_file,
)
from tasks.store.hashed import remember
from tasks.store.index import look_at
from tasks.store.listing import size_and_tag
from tasks.store.manifests import as_artifact, read_manifest
from tasks.store.verify import etag_of, verify

AT_ONCE = 16
"""Folders that are looked up at once; each look-up waits for a few requests, one after another."""
FEW = 4
"""Parts that are visited one by one; of more, their table is listed."""


class Store:
    """A folder or an S3 prefix that holds committed artifacts.

    Args:
        uri: A path, `file:///...`, or `s3://bucket/prefix`, see `open_fs`; credentials come from the AWS variables.

    Raises:
        ConfigurationError: The URI has another scheme, or carries credentials.
    """

    def __init__(self, uri: str) -> None:
        """Open the store; nothing is read or written yet."""
        if not uri:
            raise ConfigurationError("store is empty: name a folder, file:///... or s3://bucket/prefix")
        if "@" in uri.partition("://")[2].partition("/")[0]:
            raise ConfigurationError(
                "store must not carry credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead"
            )
        if ":" not in uri.partition("/")[0]:
            uri = file_uri(os.path.realpath(os.path.expanduser(uri)))
        if not uri.startswith(("file:///", "memory://")) and not re.match(r"s3://[^/]", uri):
            raise ConfigurationError(f"store = {uri!r} must be a folder, file:///... or s3://bucket/prefix")
        self.fs, self.root = open_fs(as_meant(uri))
        self.uri = file_uri(self.root) if uri.startswith("file:") else uri.rstrip("/")

    def __repr__(self) -> str:
        """Name the store in logs."""
        return f"Store({self.uri!r})"

    def path(self, relative: str) -> str:
        """Return the path of something in the store.

        Raises:
            ValueError: The path could leave the store.
        """
        return f"{self.root.rstrip('/')}/{safe_path(relative)}"

    def folder_of(self, artifact: Artifact) -> str:
        """Return the folder of an artifact, relative to the store.

        Raises:
            ValueError: The artifact is not in this store.
        """
        if not artifact.uri.startswith(self.uri + "/"):
            raise ValueError(f"{artifact.uri} is not in the store {self.uri}")
        return safe_path(artifact.uri.removeprefix(self.uri + "/"))

    def check_writable(self) -> None:
        """Write and delete a probe.

        Raises:
            ConfigurationError: The store cannot be written; says what to check.
        """
        probe = self.path(f"probe-{uuid.uuid4().hex}")
        try:
            write_file(self.fs, probe, b"")
            self.fs.rm_file(probe)
        except store_errors() as error:
            raise ConfigurationError(f"store {explain(error, self.uri, 'written')}") from error

    def commit(self, folder: str, files: Mapping[str, Content], manifest: Manifest, replace: bool = True) -> Artifact:
        """Write files, then the manifest that makes them an artifact.

        Args:
            folder: Where, relative to the store.
            files: Name -> bytes or local file.
            manifest: What to record; `files`, `libraries` and `created` are filled in here.
            replace: Replace a manifest that another writer has committed meanwhile.

        Returns:
            What stands in the folder afterwards: of two writers at once, both return what the last one wrote.

        Raises:
            StoreError: Something could not be written; there is no manifest then.
        """
        hashes = {name: sha256_of(data) for name, data in files.items()}
        content, entries = hashes_digest(hashes)[:16], {}
        for name, data in files.items():
            size = len(data) if isinstance(data, bytes) else data.stat().st_size
            etag = etag_of(data) if self.uri.startswith("s3://") else ""
            entries[name] = FileEntry(path=f"{content}/{name}", size=size, sha256=hashes[name], etag=etag)
            self._put(data, f"{folder}/{content}/{name}")
            self._know(f"{folder}/{content}/{name}", hashes[name])
        if not replace and (found := self.find(folder)) is not None:
            return found
        created = datetime.now(UTC).isoformat(timespec="seconds")
        full = manifest.model_copy(update={"files": entries, "libraries": library_versions(), "created": created})
        self._put(full.sealed().model_dump_json(indent=2).encode(), f"{folder}/{MANIFEST}")
        uri = f"{self.uri}/{folder}"
        # A server that replaces a file by removing it first has none for a moment, where another writer commits too.
        return as_artifact(uri, persist(lambda: read_manifest(uri), uri, "read"))

    def write_beside(self, folder: str, name: str, data: bytes) -> str:
        """Write a file that no manifest names into a folder, in place of an earlier one; return its URI.

        For people to read, or a hint where to look first: nothing is computed with it, so nothing verifies it. It goes
        when the folder goes.

        Raises:
            StoreError: It could not be written.
        """
        self._put(data, f"{folder}/{name}")
        return f"{self.uri}/{folder}/{name}"

    def find(self, folder: str) -> Artifact | None:
        """Return the artifact in a folder, or None where it, or a part of it, is missing, incomplete or damaged.

        Raises:
            StoreError: The store cannot be read, so that nobody knows.
        """
        self.path(folder)
        uri = f"{self.uri}/{folder}"
        try:
            manifest = read_manifest(uri)
            verify(uri, manifest.files.values())
        except DamagedArtifactError:
            return None
        return as_artifact(uri, manifest) if self._have(manifest.parts) else None

    def has_manifest(self, folder: str) -> bool:
        """Tell whether something was committed in a folder, damaged by now or not.

        Raises:
            StoreError: The store cannot be read.
        """
        path = self.path(f"{folder}/{MANIFEST}")
        return persist(lambda: bool(self.fs.exists(path)), f"{self.uri}/{folder}", "read")

    def list(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted, strangers' left out; none where it does not exist."""
        path = self.path(folder)
        try:
            found = persist(lambda: self.fs.ls(path, detail=False), f"{self.uri}/{folder}", "read")
        except FileNotFoundError:
            return []
        names = [name.rstrip("/").rsplit("/", 1)[-1] for name in found]
        return sorted(name for name in names if is_safe(name))

    def delete(self, folder: str) -> None:
        """Delete a folder, its manifest first, so that a reader never sees half of it."""
        for path in (self.path(f"{folder}/{MANIFEST}"), self.path(folder)):
            persist(lambda path=path: remove(self.fs, path), f"{self.uri}/{folder}", "written")  # type: ignore[misc]

    def _have(self, parts: Mapping[str, str]) -> bool:
        """Tell whether all of some parts of tables, whose digests are given, are there and undamaged."""
        tables = {folder.rpartition("/")[0] for folder in parts} if len(parts) > FEW else set()
        known = {
            f"{table}/{name}": part.digest
            for table in tables
            for name, part in look_at(f"{self.uri}/{table}").known.items()
        }
        unknown = {folder: digest for folder, digest in parts.items() if known.get(folder) != digest}
        found = zip(in_parallel(self.find, unknown, AT_ONCE), unknown.values(), strict=True)
        return all(part is not None and part.digest == digest for part, digest in found)

    def _put(self, data: Content, relative: str) -> None:
        path = self.path(relative)
        persist(lambda: write_file(self.fs, path, data), f"{self.uri}/{relative}", "written")

    def _know(self, relative: str, sha256: str) -> None:
        """Keep the hash of a file that was just written to a local disk, so that no look-up has to read it."""
        uri = f"{self.uri}/{relative}"
        if uri.startswith("file:"):
            with suppress(FileNotFoundError):  # another process may have deleted it
                remember(uri, *size_and_tag(self.fs, self.path(relative)), sha256)


def open_store(uri: str) -> Store:
    """Open a store that must be writable.

    Raises:
        ConfigurationError: The URI is wrong, or the store cannot be written.
    """
    store = Store(uri)
    store.check_writable()
    return store
