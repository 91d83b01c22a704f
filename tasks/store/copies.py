"""Local folders of artifacts: in place for a local store, a cached copy for S3."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from tasks.config.errors import ConfigurationError
from tasks.store.artifacts import Artifact, DamagedArtifactError, FileEntry
from tasks.store.filesystem import open_fs, persist
from tasks.store.hashed import file_sha256, forget, read_sha256
from tasks.store.manifests import read_files
from tasks.store.scratch import cache_folder, scratch_folder
from tasks.store.verify import read_with, verify


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
        folder = Path(path) / next(iter(files.values())).path.split("/")[0]
        verify(artifact.uri, files.values())
        for name, entry in files.items() if weights else ():
            _check_content(f"{artifact.uri}/{entry.path}", folder / name, entry)
        return folder
    copy = cache_folder() / (artifact.digest if weights else f"{artifact.digest}-no-weights")
    with contextlib.suppress(DamagedArtifactError):
        _check_copies(copy, files, read_sha256 if weights else file_sha256)
        return copy
    with scratch_folder("partial") as scratch:
        for name, entry in files.items():
            _download(artifact.uri, entry, scratch / "new" / name)
        _put_in_place(scratch, copy, files)
    return copy


def copy_folder(uri: str, target: Path) -> None:
    """Copy the files of a folder that nothing is known of, such as a model's, into a local folder.

    Raises:
        ConfigurationError: A file's name would lead out of the folder.
        StoreError: Something cannot be read.
    """
    fs, root = open_fs(uri)
    for path in persist(lambda: fs.find(root), uri, "read"):
        name = path.removeprefix(root).lstrip("/")
        if ".." in name.split("/"):
            raise ConfigurationError(f"{uri} holds a file {name!r}, whose name leads out of the folder: rename it")
        if not name.endswith("/"):  # some programs mark folders with empty objects
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            persist(lambda path=path, file=file: fs.get_file(path, str(file)), uri, "read")  # type: ignore[misc]


def _download(uri: str, entry: FileEntry, target: Path) -> None:
    def write(chunks: Iterator[bytes]) -> None:
        with target.open("wb") as file:
            file.writelines(chunks)

    target.parent.mkdir(parents=True, exist_ok=True)
    read_with(uri, entry, write)


def _put_in_place(scratch: Path, copy: Path, files: Mapping[str, FileEntry]) -> None:
    """Rename a downloaded folder; another process's good copy is kept, a damaged one replaced."""
    try:
        os.replace(scratch / "new", copy)
    except OSError:
        with contextlib.suppress(DamagedArtifactError):
            _check_copies(copy, files)
            return
        os.rename(copy, scratch / "damaged")
        os.replace(scratch / "new", copy)


def _check_content(uri: str, path: Path, entry: FileEntry) -> None:
    """Compare a file of a local store with its entry by reading it: what a disk has lost shows in no time or size.

    Raises:
        DamagedArtifactError: It differs.
    """
    if read_sha256(path) != entry.sha256:
        forget(uri)
        raise DamagedArtifactError(f"{uri} does not match the hash in its manifest; run again")


def _check_copies(folder: Path, files: Mapping[str, FileEntry], hash_of: Callable[[Path], str] = read_sha256) -> None:
    """Raise DamagedArtifactError where a local copy is missing or differs from its entry."""
    for name, entry in files.items():
        if not (folder / name).is_file() or hash_of(folder / name) != entry.sha256:
            raise DamagedArtifactError(f"{folder / name} does not match the hash of {entry.path}; run again")
