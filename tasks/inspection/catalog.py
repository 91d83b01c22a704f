"""What a store holds, told from its listing and its manifests: no content is read, so that looking is cheap."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tasks.config.errors import ConfigurationError
from tasks.store.artifacts import MANIFEST, Artifact, DamagedArtifactError, Manifest
from tasks.store.filesystem import in_parallel, persist
from tasks.store.folders import Store
from tasks.store.growing import REPLACES
from tasks.store.manifests import read_manifest

READERS = 32
_KEY = r"[0-9a-f]{64}"
_FOLDER = re.compile(
    rf"((?P<part>tables/[a-z_]+/{_KEY}/[A-Za-z0-9_][\w.-]*)|(?P<checkpoint>checkpoints/[a-z_]+/{_KEY}/step-\d+)"
    rf"|(?P<stage>(?!tables/|checkpoints/)[a-z_]+/{_KEY}))/",
    re.ASCII,
)
"""The folders that this project writes; whatever else lies in a store is a stranger's."""


@dataclass(frozen=True)
class Entry:
    """One folder of a store: a stage's output, a part of a table, or a checkpoint."""

    folder: str
    """Relative to the store."""
    sort: str
    """`stage`, `part` or `checkpoint`."""
    size: int
    """Bytes of all its files, dead writers' files too."""
    manifest: Manifest | None
    """None where there is none, or it cannot be read."""
    damage: str = ""
    """What is wrong with the folder, as far as the listing shows; contents are not compared."""

    @property
    def digest(self) -> str:
        """Return the digest of the content, "" where it is unknown."""
        return self.manifest.digest if self.manifest else ""

    @property
    def made(self) -> datetime | None:
        """Return when the folder was committed."""
        created = self.manifest.created if self.manifest else ""
        return datetime.fromisoformat(created) if created else None

    @property
    def order(self) -> tuple[datetime, str]:
        """Return what entries are sorted by: the newest last, those without a time first."""
        return self.made or datetime.min.replace(tzinfo=UTC), self.folder

    @property
    def table(self) -> str:
        """Return the folder of the table that a part belongs to."""
        return self.folder.rpartition("/")[0]

    @property
    def replaces(self) -> list[str]:
        """Return the folders of the parts whose rows a merged part holds."""
        names = self.manifest.stats.get(REPLACES, ()) if self.manifest else ()
        return [f"{self.table}/{name}" for name in names]

    def artifact(self, store: Store) -> Artifact:
        """Return the reference to the folder's content, which is verified when it is read.

        Raises:
            DamagedArtifactError: There is no content to refer to.
        """
        if self.manifest is None:
            raise DamagedArtifactError(f"{store.uri}/{self.folder} is {self.damage}; run again")
        facts = self.manifest.model_dump(include={"kind", "digest", "rows", "stats"})
        return Artifact(uri=f"{store.uri}/{self.folder}", **facts)


class Catalog:
    """The folders of a store."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        """Index entries, which come by folder."""
        self.entries = entries
        self._by_digest: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.select("stage"):
            self._by_digest[entry.digest].append(entry)

    def select(self, sort: str) -> list[Entry]:
        """Return the entries of one sort, the newest last."""
        return sorted((entry for entry in self.entries.values() if entry.sort == sort), key=lambda entry: entry.order)

    def with_digest(self, digest: str) -> list[Entry]:
        """Return the stages' outputs with this content, the newest last; several keys may lead to the same."""
        return self._by_digest[digest] if digest else []


def check_there(store: Store) -> None:
    """Refuse to look at a store that is not there.

    Raises:
        ConfigurationError: There is no such store.
    """
    if not persist(lambda: store.fs.isdir(store.root), store.uri, "read"):
        raise ConfigurationError(f"there is no store at {store.uri}: check the path, the bucket and the prefix")


def read_catalog(store: Store) -> Catalog:
    """List a store and read its manifests, many at a time.

    Raises:
        ConfigurationError: There is no such store.
    """
    check_there(store)
    folders: dict[str, dict[str, int]] = defaultdict(dict)
    sorts = {}
    for path, size in _files(store):
        if found := _FOLDER.match(path):
            folders[found[1]][path[found.end() :]] = size
            sorts[found[1]] = next(sort for sort, folder in found.groupdict().items() if folder)
    entries = in_parallel(lambda name: _entry(store, name, sorts[name], folders[name]), sorted(folders), READERS)
    return Catalog(_with_missing_parts({entry.folder: entry for entry in entries}))


def _files(store: Store) -> Iterator[tuple[str, int]]:
    """Yield path and size of every file below the folders that hold ours."""
    below = persist(lambda: store.fs.ls(store.root, detail=True), store.uri, "read")
    names = [item["name"].rstrip("/").rpartition("/")[2] for item in below if item["type"] == "directory"]
    ours = in_parallel(lambda name: _holds_ours(store, name), names, READERS)
    roots = [f"{store.root}/{name}" for name, is_ours in zip(names, ours, strict=True) if is_ours]
    for found in in_parallel(lambda root: _walk(store, root), roots, READERS):
        for path, info in found.items():
            yield path.removeprefix(f"{store.root}/"), info["size"]


def _walk(store: Store, root: str) -> dict[str, dict[str, Any]]:
    return persist(lambda: store.fs.find(root, detail=True), store.uri, "read")


def _holds_ours(store: Store, name: str) -> bool:
    """Tell whether a top folder may hold entries; a stranger's folder is not walked, whatever its size."""
    if name in ("tables", "checkpoints"):
        return True
    if not re.fullmatch(r"[a-z_]+", name):
        return False
    return any(re.fullmatch(_KEY, child) for child in store.list(name))


def _entry(store: Store, folder: str, sort: str, files: dict[str, int]) -> Entry:
    size = sum(files.values())
    if MANIFEST not in files:
        return Entry(folder, sort, size, None, "incomplete")
    try:
        manifest = read_manifest(f"{store.uri}/{folder}")
    except DamagedArtifactError:
        return Entry(folder, sort, size, None, f"damaged: {MANIFEST}")
    wrong = [name for name, file in sorted(manifest.files.items()) if files.get(file.path) != file.size]
    return Entry(folder, sort, size, manifest, f"damaged: {', '.join(wrong)}" if wrong else "")


def _with_missing_parts(entries: dict[str, Entry]) -> dict[str, Entry]:
    """Mark entries with parts that are gone, damaged, or hold something else by now."""

    def gone(folder: str, digest: str) -> bool:
        part = entries.get(folder)
        return part is None or bool(part.damage) or part.digest != digest

    def marked(entry: Entry) -> Entry:
        parts = entry.manifest.parts if entry.manifest and not entry.damage else {}
        lost = sum(gone(folder, digest) for folder, digest in parts.items())
        damage = f"damaged: {lost} of {len(parts)} parts" if lost else entry.damage
        return Entry(entry.folder, entry.sort, entry.size, entry.manifest, damage)

    return {folder: marked(entry) for folder, entry in entries.items()}
