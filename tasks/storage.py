"""The object store, in a file system or S3 (fsspec): the only module that reads and writes it.

A folder is complete when its `manifest.json` exists: it is written last, lists every file with size and hash, and names
the content-addressed subfolder that holds them. Two writers of one folder therefore never mix: each writes its own
subfolder, and the manifest that stands names one of them.
"""

import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from botocore.exceptions import BotoCoreError
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from tasks.artifacts import (
    Artifact,
    Content,
    DamagedArtifactError,
    FileEntry,
    Manifest,
    files_digest,
    is_safe,
    library_versions,
    safe_path,
    sha256_of,
)

MANIFEST = "manifest.json"
STORE_ERRORS = (OSError, BotoCoreError)
S3_OPTIONS: dict[str, Any] = {
    # Servers other than AWS often lack the newer checksum trailers that botocore sends by default.
    "config_kwargs": {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "retries": {"max_attempts": 8, "mode": "standard"},
    },
    "use_listings_cache": False,
}
_verified: set[tuple[str, str, str]] = set()  # files that this process has compared with their manifests


def open_fs(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a path or URI, and the path within it."""
    fs, path = fsspec.core.url_to_fs(uri, **(S3_OPTIONS if uri.startswith("s3://") else {}))
    return fs, path


class Store:
    """A folder or an S3 prefix that holds committed artifacts.

    Args:
        uri: A path, `file:///...`, or `s3://bucket/prefix`; credentials come from the AWS variables, never the URI.

    Raises:
        ValueError: The URI has another scheme, or carries credentials.
    """

    def __init__(self, uri: str) -> None:
        """Open the store; nothing is read or written yet."""
        if "@" in uri.partition("://")[2].partition("/")[0]:
            raise ValueError(
                "store must not carry credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead"
            )
        if ":" not in uri.partition("/")[0]:
            uri = f"file://{Path(uri).expanduser().resolve()}"
        if not uri.startswith(("file:///", "memory://")) and not re.match(r"s3://[^/]", uri):
            raise ValueError(f"store = {uri!r} must be a folder, file:///... or s3://bucket/prefix")
        self.uri = uri.rstrip("/")
        self.fs, self.root = open_fs(self.uri)

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
        return artifact.uri.removeprefix(self.uri + "/")

    def check_writable(self) -> None:
        """Write and delete a probe.

        Raises:
            ValueError: The store cannot be written; says what to check.
        """
        probe = f"probe/{uuid.uuid4().hex}"
        try:
            self._put(b"", probe)
            self.fs.rm_file(self.path(probe))
        except STORE_ERRORS as error:
            s3 = self.uri.startswith("s3://")
            cause = (
                "the bucket, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                if s3
                else "permissions and disk"
            )
            raise ValueError(
                f"store {self.uri} cannot be written ({type(error).__name__}: {error}): check {cause}"
            ) from error

    def commit(self, folder: str, files: Mapping[str, Content], manifest: Manifest) -> Artifact:
        """Write files, then the manifest that makes them an artifact.

        Args:
            folder: Where, relative to the store.
            files: Name -> bytes or local file.
            manifest: What to record; `files`, `libraries` and `created` are filled in here.
        """
        content, entries = files_digest(files)[:16], {}
        for name, data in files.items():
            size = len(data) if isinstance(data, bytes) else data.stat().st_size
            entries[name] = FileEntry(path=f"{content}/{name}", size=size, sha256=sha256_of(data))
            self._put(data, f"{folder}/{content}/{name}")
        created = datetime.now(UTC).isoformat(timespec="seconds")
        full = manifest.model_copy(update={"files": entries, "libraries": library_versions(), "created": created})
        self._put(full.sealed().model_dump_json(indent=2).encode(), f"{folder}/{MANIFEST}")
        return _artifact(f"{self.uri}/{folder}", full)

    def find(self, folder: str) -> Artifact | None:
        """Return the artifact in a folder, or None where it, or a part of it, is missing, incomplete or damaged."""
        self.path(folder)
        uri = f"{self.uri}/{folder}"
        try:
            manifest = read_manifest(uri)
            verify(uri, manifest.files.values())
            for part, digest in manifest.parts.items():
                if (found := self.find(part)) is None or found.digest != digest:
                    return None
        except DamagedArtifactError:
            return None
        return _artifact(uri, manifest)

    def list(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted, strangers' left out; none where it does not exist."""
        try:
            names = [path.rstrip("/").rsplit("/", 1)[-1] for path in self.fs.ls(self.path(folder), detail=False)]
        except FileNotFoundError:
            return []
        return sorted(name for name in names if is_safe(name))

    def delete(self, folder: str) -> None:
        """Delete a folder, its manifest first, so that a reader never sees half of it."""
        for path in (f"{folder}/{MANIFEST}", folder):
            if self.fs.exists(self.path(path)):
                self.fs.rm(self.path(path), recursive=True)

    def _put(self, data: Content, relative: str) -> None:
        """Write a file so that it appears whole or not at all."""
        path = self.path(relative)
        if not isinstance(self.fs, LocalFileSystem):
            self.fs.pipe_file(path, data) if isinstance(data, bytes) else self.fs.put_file(str(data), path)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=Path(path).parent, prefix=".partial-")
        try:
            with open(descriptor, "wb") as file:
                if isinstance(data, bytes):
                    file.write(data)
                else:
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(partial, 0o644)
            os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)


def open_store(uri: str) -> Store:
    """Open a store that must be writable.

    Raises:
        ValueError: The URI is wrong, or the store cannot be written.
    """
    store = Store(uri)
    store.check_writable()
    return store


def read_manifest(uri: str) -> Manifest:
    """Return the manifest of a committed folder.

    Raises:
        DamagedArtifactError: There is none, or it cannot be parsed.
    """
    fs, path = open_fs(uri)
    try:
        manifest = Manifest.model_validate_json(fs.cat_file(f"{path}/{MANIFEST}"))
    except FileNotFoundError as error:
        raise DamagedArtifactError(f"{uri} has no {MANIFEST}: it was never completed; run again") from error
    except ValidationError as error:
        raise DamagedArtifactError(f"{uri}/{MANIFEST} is damaged; delete it and run again") from error
    if manifest.sealed().checksum != manifest.checksum:
        raise DamagedArtifactError(f"{uri}/{MANIFEST} does not match its own checksum; delete it and run again")
    return manifest


def read_files(artifact: Artifact) -> dict[str, FileEntry]:
    """Return the file names and entries of an artifact, in order.

    Raises:
        DamagedArtifactError: The folder holds something else by now, or nothing.
    """
    manifest = read_manifest(artifact.uri)
    if manifest.digest != artifact.digest:
        raise DamagedArtifactError(f"{artifact.uri} now holds {manifest.digest}, not {artifact.digest}; run again")
    return dict(sorted(manifest.files.items()))


def read_bytes(artifact: Artifact, name: str) -> bytes:
    """Return the content of one file of an artifact.

    Raises:
        DamagedArtifactError: The file is missing or differs from the manifest.
    """
    return read_entry(artifact.uri, read_files(artifact)[name])


def _artifact(uri: str, manifest: Manifest) -> Artifact:
    return Artifact(uri=uri, **manifest.model_dump(include={"kind", "digest", "rows", "stats"}))


def read_entry(uri: str, entry: FileEntry) -> bytes:
    """Return the content of a file of the folder at a URI.

    Raises:
        DamagedArtifactError: The file is missing or differs from its entry.
    """
    fs, path = open_fs(f"{uri}/{entry.path}")
    try:
        data: bytes = fs.cat_file(path)
    except FileNotFoundError as error:
        raise DamagedArtifactError(f"{uri}/{entry.path} is missing; run again") from error
    if sha256_of(data) != entry.sha256:
        raise DamagedArtifactError(f"{uri}/{entry.path} does not match the hash in its manifest; run again")
    return data


def verify(uri: str, entries: Iterable[FileEntry]) -> None:
    """Compare files with the manifest; a file that this process has compared before is not read again."""
    for entry in entries:
        fs, path = open_fs(f"{uri}/{entry.path}")
        try:
            info = fs.info(path)
            seen = (path, entry.sha256, str(info.get("ETag") or info.get("mtime")))
            if info["size"] != entry.size:
                raise DamagedArtifactError(f"{path} has {info['size']} bytes instead of {entry.size}; run again")
            if seen in _verified:
                continue
            with fs.open(path, "rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise DamagedArtifactError(f"{path} is missing; run again") from error
        if actual != entry.sha256:
            raise DamagedArtifactError(f"{path} does not match the hash in its manifest; run again")
        _verified.add(seen)
