"""Tables that grow: parts shared by every run with the same model and settings, and slices of them.

A part is a committed folder under `tables/<kind>/<table key>/<part>`. A stage's artifact holds no rows; its
`slices.json` names the parts, and the prompts and completions of each part, that are its own.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.store.artifacts import Artifact, Manifest, Provenance, safe_path, sha256_of
from tasks.store.drafts import Draft
from tasks.store.filesystem import in_parallel
from tasks.store.folders import AT_ONCE, Store, read_bytes, read_manifest
from tasks.store.index import facts_of, look_at, write_index
from tasks.store.parquet import read_columns, read_table, table_bytes
from tasks.store.schemas import SCHEMAS, add_digests, format_digest, rows_digest

SLICES = "slices.json"
MERGED = "-merged-"
"""In the names of parts that hold the rows of others; their stats name these by digest, as `REPLACES`."""
REPLACES = "replaces"
READ_AHEAD = 4
"""Parts that are held in memory at once."""


class Slice(NamedTuple):
    """A part of a table, and the prompts and completions whose rows count; None: all."""

    part: Artifact
    prompt_ids: frozenset[str] | None = None
    completion_ids: frozenset[int] | None = None
    group: int | None = None
    """Slices of one number share prompts, and are read together; None: the slice's prompts are in no other."""
    shift: int = 0
    """What the ids of completions are raised by, once they are selected, so that several tables make one."""

    @property
    def is_whole(self) -> bool:
        """Tell whether every row of the part counts, as it is."""
        return self.prompt_ids is None and self.completion_ids is None and not self.shift

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """Return the rows of the slice, verified; some columns or all."""
        filters = {"prompt_id": self.prompt_ids, "completion_id": self.completion_ids}
        asked = [name for name, ids in filters.items() if ids is not None]
        needed = None if columns is None else [*columns, *(name for name in asked if name not in columns)]
        table = read_table(self.part, needed)
        for name in asked:
            wanted = pa.array(sorted(filters[name] or ()), table.schema.field(name).type)
            table = table.filter(pc.is_in(table[name], wanted))
        if self.shift and "completion_id" in table.column_names:
            table = raise_ids(table, ["completion_id"], self.shift)
        return table if columns is None else table.select(columns)

    def num_rows(self) -> int:
        """Return the number of the slice's rows."""
        return self.part.rows if self.is_whole else self.read(["prompt_id"]).num_rows

    def completions(self) -> dict[str, frozenset[int]]:
        """Return the ids of the slice's completions by prompt."""
        found = {
            prompt_id: ids if self.completion_ids is None else ids & self.completion_ids
            for ids, prompt_ids in completions_of(self.part)
            for prompt_id in prompt_ids
            if self.prompt_ids is None or prompt_id in self.prompt_ids
        }
        return {prompt_id: frozenset(id_ + self.shift for id_ in ids) for prompt_id, ids in found.items() if ids}

    def measure(self) -> tuple[int, int]:
        """Return the number of the slice's rows, and their digest as a number that `add_digests` adds up."""
        if self.is_whole:
            return self.part.rows, int(self.part.digest, 16)
        rows = self.read()
        return rows.num_rows, rows_digest(rows)


def raise_ids(table: pa.Table, columns: Iterable[str], by: int) -> pa.Table:
    """Return a table with some columns of completion ids raised by a number."""
    for name in columns:
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pc.add(table[name], pa.scalar(by, pa.int32())))
    return table


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
        """Return the complete, undamaged parts, in the order of their names; each is looked up as it is asked for.

        Parts that were merged are left out where the part that holds their rows is there.
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
    """The parts of a table, as one listing shows them.

    `sizes` has the bytes of each part's files by its name, in the order of the names.
    """

    def __init__(self, table: GrowingTable) -> None:
        """List the table."""
        self._table = table
        self._known, self.sizes = look_at(table.uri)

    def __call__(self, name: str) -> Artifact | None:
        """Return a part, or None where it is missing or damaged."""
        if name not in self.sizes:
            return None
        facts = self._known.get(name)
        return facts.artifact(f"{self._table.uri}/{name}") if facts else self._table.find(name)

    def merged(self) -> list[Artifact]:
        """Return the parts that hold the rows of others."""
        found = in_parallel(self, [name for name in self.sizes if MERGED in name], AT_ONCE)
        return [part for part in found if part is not None]

    def current(self) -> list[str]:
        """Return the names of the parts, in their order, but for those whose rows a merged part has."""
        replaced = {name for part in self.merged() for name in replaced_by(part)}
        return [name for name in self.sizes if name not in replaced]

    def each(self, besides: Collection[str] = ()) -> Iterator[Artifact]:
        """Return the current parts, those at some URIs left out; each is looked up as it is asked for."""
        rest = [name for name in self.current() if f"{self._table.uri}/{name}" not in besides]
        return (part for part in in_parallel(self, rest, AT_ONCE) if part is not None)


def replaced_by(part: Artifact) -> dict[str, str]:
    """Return name -> digest of the parts whose rows a merged part holds; nothing of another part."""
    return part.stats.get(REPLACES, {})


def completions_of(part: Artifact) -> list[tuple[frozenset[int], list[str]]]:
    """Return what a part holds: ids of completions, each time with the prompts that have just these in the part."""
    rows = read_columns(part, ["prompt_id", "completion_id"])
    if not rows.num_rows:
        return []
    prompts = rows["prompt_id"].combine_chunks().dictionary_encode()
    names, ids = prompts.dictionary.to_pylist(), rows["completion_id"].to_numpy()
    has = np.zeros((len(names), 1 + int(ids.max())), bool)
    has[prompts.indices.to_numpy(), ids] = True
    if has.all():
        return [(frozenset(range(has.shape[1])), names)]
    patterns, pattern_of = np.unique(has, axis=0, return_inverse=True)
    held: list[tuple[frozenset[int], list[str]]] = [(frozenset(np.flatnonzero(own).tolist()), []) for own in patterns]
    for name, pattern in zip(names, pattern_of.ravel().tolist(), strict=True):
        held[pattern][1].append(name)
    return held


def groups_of(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Return the slices that are read together: between them, they have every completion of their prompts."""
    groups: dict[tuple[str, int], list[Slice]] = defaultdict(list)
    for number, slice_ in enumerate(slices):
        groups[("alone", number) if slice_.group is None else ("group", slice_.group)].append(slice_)
    return list(groups.values())


def read_whole_prompts(slices: Iterable[Slice], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield rows of the slices, verified, a prompt's all at once; the next ones are already on their way."""
    return in_parallel(lambda group: read_group(group, columns), groups_of(slices), READ_AHEAD)


def read_group(group: list[Slice], columns: list[str] | None = None) -> pa.Table:
    """Return the rows of slices that are read together."""
    return pa.concat_tables([slice_.read(columns) for slice_ in group])


def read_ahead(slices: Iterable[Slice], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of each slice, verified, the next ones already on their way; `columns` as for `Slice.read`."""
    return in_parallel(lambda slice_: slice_.read(columns), slices, READ_AHEAD)


def read_sorted(slices: Iterable[Slice]) -> pa.Table:
    """Return all rows of slices, verified, ordered by prompt_id and completion_id."""
    return sort_rows(pa.concat_tables([slice_.read() for slice_ in slices]))


def sort_rows(table: pa.Table) -> pa.Table:
    """Return rows ordered by prompt_id and completion_id."""
    return table.sort_by([("prompt_id", "ascending"), ("completion_id", "ascending")])


def commit_slices(draft: Draft, kind: str, slices: list[Slice], stats: dict[str, Any]) -> Artifact:
    """Commit a stage's artifact: its slices, under the digest of their rows."""
    listing = [
        {
            "part": draft.store.folder_of(slice_.part),
            "digest": slice_.part.digest,
            "rows": slice_.part.rows,
            "prompt_ids": None if slice_.prompt_ids is None else sorted(slice_.prompt_ids),
            "completion_ids": None if slice_.completion_ids is None else sorted(slice_.completion_ids),
            "group": slice_.group,
            **({"shift": slice_.shift} if slice_.shift else {}),
        }
        for slice_ in slices
    ]
    measures = list(in_parallel(Slice.measure, slices, READ_AHEAD))
    rows, digest = sum(rows for rows, _ in measures), format_digest(add_digests(digest for _, digest in measures))
    parts = {str(item["part"]): str(item["digest"]) for item in listing}
    files = {SLICES: json.dumps(listing, indent=0).encode()}
    index_parts(draft.store, parts)
    return draft.commit(kind, files, digest, rows=rows, stats=stats, parts=parts)


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
        known = look_at(uri).known
        new = [name for name, digest in own.items() if name not in known or known[name].digest != digest]
        facts = in_parallel(lambda name, uri=uri: (name, facts_of(read_manifest(f"{uri}/{name}"))), new, AT_ONCE)
        if added := {name: part for name, part in facts if part is not None}:
            write_index(uri, known | added)


def read_slices(store: Store, artifact: Artifact) -> list[Slice]:
    """Return the slices of a stage's artifact.

    Raises:
        DamagedArtifactError: The list of slices is missing or damaged.
        ValueError: The list names a folder outside of the store.
    """
    listing = json.loads(read_bytes(artifact, SLICES))
    return [
        Slice(
            Artifact(
                kind=artifact.kind,
                uri=f"{store.uri}/{safe_path(item['part'])}",
                digest=item["digest"],
                rows=item["rows"],
            ),
            None if item["prompt_ids"] is None else frozenset(item["prompt_ids"]),
            None if item["completion_ids"] is None else frozenset(item["completion_ids"]),
            item["group"],
            item.get("shift", 0),
        )
        for item in listing
    ]


def part_name(ids: list[str]) -> str:
    """Return the name of the part that holds these rows: the same rows make the same part."""
    return sha256_of(json.dumps(sorted(ids)).encode())[:32]
