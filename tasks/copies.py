"""Local folders of artifacts: in place for a local store, a cached copy for S3."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from tasks.artifacts import Artifact, DamagedArtifactError, FileEntry, sha256_of
from tasks.filesystem import open_fs
from tasks.scratch import cache_folder
from tasks.storage import read_files
from tasks.verify import read_with, verify


def fetch(artifact: Artifact, weights: bool = True) -> Path:
    """Return a local folder with the artifact's verified files: in place for a local store, else a cached copy.

    Args:
        artifact: What to fetch, usually a model.
        weights: Whether `*.safetensors` are wanted too; without them only the rest is verified, and copied from S3.

    Raises:
        DamagedArtifactError: A file is missing or differs from the manifest.
        StoreError: The store cannot be read.
    """
    fs, path = open_fs(artifact.uri)
    files = {
        name: entry for name, entry in read_files(artifact).items() if weights or not name.endswith(".safetensors")
    }
    if isinstance(fs, LocalFileSystem):
        verify(artifact.uri, files.values())
        return Path(path) / next(iter(files.values())).path.split("/")[0]
    copy = cache_folder() / (artifact.digest if weights else f"{artifact.digest}-no-weights")
    with contextlib.suppress(DamagedArtifactError):
        _check_copies(copy, files)
        return copy
    cache_folder().mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=cache_folder(), prefix="partial-"))
    try:
        for name, entry in files.items():
            _download(artifact.uri, entry, partial / name)
        _put_in_place(partial, copy, files)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return copy


def _download(uri: str, entry: FileEntry, target: Path) -> None:
    def write(chunks: Iterator[bytes]) -> None:
        with target.open("wb") as file:
            file.writelines(chunks)

    target.parent.mkdir(parents=True, exist_ok=True)
    read_with(uri, entry, write)


def _put_in_place(partial: Path, copy: Path, files: Mapping[str, FileEntry]) -> None:
    """Rename a downloaded folder; another process's good copy is kept, a damaged one replaced."""
    try:
        os.replace(partial, copy)
    except OSError:
        with contextlib.suppress(DamagedArtifactError):
            _check_copies(copy, files)
            return
        damaged = partial.with_name(f"{partial.name}-damaged")
        os.rename(copy, damaged)
        os.replace(partial, copy)
        shutil.rmtree(damaged, ignore_errors=True)


def _check_copies(folder: Path, files: Mapping[str, FileEntry]) -> None:
    """Raise DamagedArtifactError where a local copy is missing or differs from its entry."""
    for name, entry in files.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != entry.sha256:
            raise DamagedArtifactError(f"{folder / name} does not match the hash of {entry.path}; run again")
