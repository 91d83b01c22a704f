"""Manifests of committed folders, read and checked; artifacts and their files, as the manifests name them."""

from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from tasks.store.artifacts import MANIFEST, Artifact, DamagedArtifactError, FileEntry, Manifest, checksum_of, sha256_of
from tasks.store.filesystem import open_fs, persist, read_small_file
from tasks.store.hashed import forget, remember
from tasks.store.listing import size_and_tag
from tasks.store.verify import etag_of, read_entry

T = TypeVar("T")


def read_manifest(uri: str) -> Manifest:
    """Return the manifest of a committed folder.

    Raises:
        DamagedArtifactError: There is none, or it cannot be parsed.
        StoreError: The store cannot be read.
    """
    fs, path = open_fs(f"{uri}/{MANIFEST}")
    return _committed(lambda: _parse(read_small_file(fs, path), uri), uri)


def read_sealed(uri: str) -> tuple[Manifest, FileEntry]:
    """Return the manifest of a committed folder, and the entry by which a listing shows that it is still the same.

    Raises:
        DamagedArtifactError: See `read_manifest`.
        StoreError: The store cannot be read.
    """
    where = f"{uri}/{MANIFEST}"
    fs, path = open_fs(where)

    def attempt() -> tuple[Manifest, FileEntry]:
        size, tag = size_and_tag(fs, path)
        content = read_small_file(fs, path)
        entry = FileEntry(path=MANIFEST, size=len(content), sha256=sha256_of(content), etag=etag_of(content))
        manifest = _parse(content, uri)
        if size == entry.size and tag != entry.etag:
            remember(where, size, tag, entry.sha256)
        return manifest, entry

    return _committed(attempt, uri)


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


def reference(uri: str) -> Artifact:
    """Return the artifact in a committed folder, whose content is verified when it is read.

    Raises:
        DamagedArtifactError: There is none.
    """
    return as_artifact(uri, read_manifest(uri))


def as_artifact(uri: str, manifest: Manifest) -> Artifact:
    """Return the reference to what a manifest describes, which is at a URI."""
    return Artifact(uri=uri, **manifest.model_dump(include={"kind", "digest", "rows", "stats"}))


def _committed(attempt: Callable[[], T], uri: str) -> T:
    """Return what reading a manifest gives; its absence is damage."""
    try:
        return persist(attempt, uri, "read")
    except FileNotFoundError as error:
        raise DamagedArtifactError(f"{uri} has no {MANIFEST}: it was never completed; run again") from error


def _parse(content: bytes, uri: str) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        forget(f"{uri}/{MANIFEST}")  # else look-ups would go on taking it for what it was
        raise DamagedArtifactError(f"{uri}/{MANIFEST} is damaged; delete it and run again") from error
    if checksum_of(content) != manifest.checksum:
        forget(f"{uri}/{MANIFEST}")
        raise DamagedArtifactError(f"{uri}/{MANIFEST} does not match its own checksum; delete it and run again")
    return manifest
