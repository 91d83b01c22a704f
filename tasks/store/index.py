"""What is known of the parts of a table without visiting them: `index.json` in the table's folder, and a listing.

The index repeats what the manifests of parts say. A part of it counts where the listing shows its manifest, and its
file as the index says; whatever is not known so is visited. So the index may be old, damaged or missing: it decides how
many requests a look-up takes, never what it finds.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from tasks.store.artifacts import Artifact, FileEntry, SafePath, is_safe, sha256_of
from tasks.store.filesystem import open_fs, persist, read_small_file, write_file
from tasks.store.hashed import recall_below
from tasks.store.listing import list_files
from tasks.store.manifests import read_sealed

INDEX = "index.json"


class PartFacts(BaseModel):
    """What the manifest of a part says."""

    kind: str
    digest: str
    rows: int
    stats: dict[str, Any] = {}
    file: FileEntry
    """The part's only file."""
    manifest: FileEntry
    """The manifest itself."""

    def artifact(self, uri: str) -> Artifact:
        """Return the part, which is at a URI."""
        return Artifact(uri=uri, **self.model_dump(exclude={"file", "manifest"}))


def facts_of(uri: str) -> PartFacts | None:
    """Return what the index keeps of the part at a URI; None where it has not a single file, and so nothing to index.

    Raises:
        DamagedArtifactError: It has no manifest, or a damaged one.
        StoreError: The store cannot be read.
    """
    manifest, entry = read_sealed(uri)
    if len(manifest.files) != 1:
        return None
    (file,) = manifest.files.values()
    facts = manifest.model_dump(include={"kind", "digest", "rows", "stats"})
    return PartFacts(**facts, file=file, manifest=entry)


class _Index(BaseModel):
    parts: dict[SafePath, PartFacts]
    checksum: str


class Look(NamedTuple):
    """What one look at a table's folder shows."""

    known: dict[str, PartFacts]
    """Name -> part that is whole, as the index and the listing say."""
    sizes: dict[str, int]
    """Name -> bytes of the files of every folder, of those too that nothing is known of; in the order of the names."""


def look_at(uri: str) -> Look:
    """Look at the parts of the table at a URI: one listing, and its index.

    Raises:
        StoreError: The store cannot be read.
    """
    fs, root = open_fs(uri)
    files = persist(lambda: list_files(fs, root), uri, "read")
    facts = read_index(uri) if INDEX in files else {}
    read = recall_below(uri) if facts else {}

    def is_known(path: str, file: FileEntry) -> bool:
        """Tell whether a file has the content that the index says: by its ETag, or as this machine has read it."""
        size, tag = files.get(path, (-1, ""))
        by_tag = bool(file.etag) and tag == file.etag
        return size == file.size and (by_tag or read.get(f"{uri}/{path}") == (size, tag, file.sha256))

    known = {
        name: part
        for name, part in facts.items()
        if all(is_known(f"{name}/{file.path}", file) for file in (part.manifest, part.file))
    }
    sizes: Counter[str] = Counter()
    for path, (size, _) in files.items():
        sizes[path.partition("/")[0]] += size if "/" in path else 0
    return Look(known, {name: sizes[name] for name in sorted(sizes) if sizes[name] and is_safe(name)})


def read_index(uri: str) -> dict[str, PartFacts]:
    """Return what the index of a table says of its parts, by name; nothing where it is missing or damaged."""
    fs, path = open_fs(f"{uri}/{INDEX}")
    with suppress(FileNotFoundError, ValidationError):
        index = _Index.model_validate_json(persist(lambda: read_small_file(fs, path), uri, "read"))
        if index.checksum == _checksum(index.parts):
            return index.parts
    return {}


def write_index(uri: str, parts: Mapping[str, PartFacts]) -> None:
    """Replace the index of a table. Of two writers at once the last one stands: what it lacks is visited again.

    Raises:
        StoreError: It cannot be written.
    """
    fs, path = open_fs(f"{uri}/{INDEX}")
    index = _Index(parts=dict(parts), checksum=_checksum(parts))
    persist(lambda: write_file(fs, path, index.model_dump_json().encode()), uri, "written")


def drop_from_index(uri: str, names: Collection[str]) -> None:
    """Take parts that are gone out of the index of a table.

    Raises:
        StoreError: It cannot be written.
    """
    facts = read_index(uri)
    if not facts.keys().isdisjoint(names):
        write_index(uri, {name: part for name, part in facts.items() if name not in names})


def _checksum(parts: Mapping[str, PartFacts]) -> str:
    text = {name: part.model_dump_json() for name, part in parts.items()}
    return sha256_of(json.dumps(text, sort_keys=True).encode())
