"""Tables that grow: parts shared by every run with the same model and settings.

A part is a committed folder under `tables/<kind>/<table key>/<part>`; which rows of it are a stage's own, slices say.
"""

import functools
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa

from tasks.store.artifacts import Artifact, Manifest, Provenance, sha256_of
from tasks.store.filesystem import in_parallel
from tasks.store.folders import AT_ONCE, Store
from tasks.store.index import facts_of, look_at, read_index, write_index
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest

MERGED = "-merged-"
"""In the names of parts that hold the rows of others; their stats name these by digest, as `REPLACES`."""
REPLACES = "replaces"
DIFFERS = "differs"
"""In the stats of merged parts: names of those that had another row of an id, which is not in the merged part."""


class GrowingTable:
    """The parts of one table: rows that depend on (prompt, model, settings) only."""

    def __init__(self, store: Store, kind: str, provenance: Provenance) -> None:
        """Name the table by the provenance's key: what every row of it depends on, the prompt apart."""
        self.store = store
        self.kind = kind
        self.provenance = provenance
        self.folder = f"tables/{kind}/{provenance.key}"

    def find(self, name: str) -> Artifact | None:
        """Return a part by name, or None where it is missing or damaged."""
        return self.store.find(f"{self.folder}/{name}")

    @property
    def uri(self) -> str:
        """Return the URI of the table's folder."""
        return f"{self.store.uri}/{self.folder}"

    def parts(self) -> Iterator[Artifact]:
        """Yield the complete, undamaged parts, in the order of their names; each is looked up as it is asked for.

        Parts whose rows a merged part holds are left out where that one is there.
        """
        return self.look().each()

    def look(self) -> "Parts":
        """Return the parts that are there now: one listing; those that it does not show to be whole are visited."""
        return Parts(self)

    def append(self, name: str, table: pa.Table, **stats: Any) -> Artifact:
        """Commit rows as a part; one of this name that is there already stays, since others may have read it.

        Returns:
            What stands in the store afterwards, whoever wrote it.

        Raises:
            StoreError: The part could not be written.
        """
        if (found := self.find(name)) is not None:
            return found
        table = table.select(SCHEMAS[self.kind].names).cast(SCHEMAS[self.kind])
        digest = format_digest(rows_digest(table))
        manifest = Manifest(kind=self.kind, digest=digest, rows=table.num_rows, stats=stats, provenance=self.provenance)
        files = {"rows.parquet": table_bytes(table, self.kind)}
        return self.store.commit(f"{self.folder}/{name}", files, manifest, replace=False)


class Parts:
    """The parts of a table, as one listing shows them."""

    def __init__(self, table: GrowingTable) -> None:
        """List the table."""
        self._table = table
        self._known, self.sizes = look_at(table.uri)
        """`sizes`: name of a part -> bytes of its files, in the order of the names."""

    def find(self, name: str) -> Artifact | None:
        """Return a part, or None where it is missing or damaged."""
        if name not in self.sizes:
            return None
        facts = self._known.get(name)
        return facts.artifact(f"{self._table.uri}/{name}") if facts else self._table.find(name)

    @functools.cached_property
    def merged(self) -> list[Artifact]:
        """Return the parts that hold the rows of others; looked up once."""
        found = in_parallel(self.find, [name for name in self.sizes if MERGED in name], AT_ONCE)
        return [part for part in found if part is not None]

    def current(self) -> list[str]:
        """Return the names of the parts, in their order, but for those whose rows a merged part has."""
        replaced = {name for part in self.merged for name in replaced_by(part)}
        return [name for name in self.sizes if name not in replaced]

    def each(self, besides: Collection[str] = ()) -> Iterator[Artifact]:
        """Yield the current parts but for those at some URIs; each is looked up as it is asked for."""
        rest = [name for name in self.current() if f"{self._table.uri}/{name}" not in besides]
        return (part for part in in_parallel(self.find, rest, AT_ONCE) if part is not None)


def replaced_by(part: Artifact) -> dict[str, str]:
    """Return name -> digest of the parts whose rows a merged part holds; nothing of another part."""
    return dict(part.stats.get(REPLACES, {}))


def held_by(part: Artifact) -> dict[str, str]:
    """Return name -> digest of the parts whose every row a merged part holds just as it was."""
    differs = part.stats.get(DIFFERS, [])
    return {name: digest for name, digest in replaced_by(part).items() if name not in differs}


def index_parts(store: Store, parts: Mapping[str, str]) -> None:
    """Enter parts into the indexes of their tables, so that look-ups need not visit them.

    Args:
        store: Where they are.
        parts: Folder -> digest.
    """
    tables: dict[str, dict[str, str]] = defaultdict(dict)
    for folder, digest in parts.items():
        table, _, name = folder.rpartition("/")
        tables[f"{store.uri}/{table}"][name] = digest
    for uri, own in tables.items():
        known = read_index(uri)
        new = [name for name, digest in own.items() if name not in known or known[name].digest != digest]
        facts = in_parallel(facts_of, [f"{uri}/{name}" for name in new], AT_ONCE)
        if added := {name: part for name, part in zip(new, facts, strict=True) if part is not None}:
            write_index(uri, known | added)


def part_name(ids: list[str]) -> str:
    """Return the name of the part that holds these rows: the same rows make the same part."""
    return sha256_of(json.dumps(sorted(ids)).encode())[:32]
