"""Small parts of a table merged into larger ones, so that what a look-up costs does not grow with the number of runs.

A merged part is a part like any other: its manifest, written last, names in its stats the parts whose rows it holds.
From then on look-ups leave these out. They stay where they are for the artifacts that name them, until they are pruned.
A compaction that is killed leaves merged parts or none; two at once merge the same parts into the same.

A part of rewards is named by its part of completions: those of merged completions are merged when they are next asked
for, see `tasks/rewards/table.py`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.store.artifacts import Artifact, Provenance, sha256_of
from tasks.store.filesystem import in_parallel
from tasks.store.folders import Store
from tasks.store.growing import DIFFERS, MERGED, REPLACES, GrowingTable, Parts, index_parts, replaced_by
from tasks.store.manifests import read_manifest
from tasks.store.parquet import read_table
from tasks.store.slices import READ_AHEAD

SMALL = 128 << 10
"""Bytes below which a run takes a part for small."""
MANY = 256
"""Small parts above which a run merges them."""
LARGE = 8 << 20
"""Bytes up to which parts are merged: what one request reads."""
IDS = {
    "completions": ("prompt_id", "completion_id"),
    "ref_logps": ("sequence_id",),
    "prompts": ("prompt_id",),
    "added_preferences": ("preference_id",),
    "judgments": ("request_id",),
}
"""Kind of table that can be compacted -> what tells its rows apart."""
IN_ORDER = ("prompts", "added_preferences")
"""Tables that are read in the order of their parts' names."""


def compact(table: GrowingTable, found: Parts, small: int = SMALL, many: int = MANY) -> list[Artifact]:
    """Merge the small parts of a table where there are many; return the merged parts.

    Args:
        table: The table.
        found: Its parts.
        small: Bytes of files below which a part is small.
        many: Small parts that may stay as they are.

    Raises:
        DamagedArtifactError: A part was damaged since it was looked up.
        StoreError: A merged part could not be written.
    """
    names = found.current()
    if sum(found.sizes[name] < small for name in names) <= many:
        return []
    bundles = _bundles(names, found.sizes, small, table.kind in IN_ORDER)
    merged = [part for bundle in bundles if (part := _merge(table, found, bundle)) is not None]
    index_parts(table.store, {table.store.folder_of(part): part.digest for part in merged})
    return merged


def compact_store(store: Store) -> Iterator[tuple[GrowingTable, list[Artifact]]]:
    """Merge all parts of a store's tables that are not large; yield each table that had some, with its merged parts.

    Raises:
        DamagedArtifactError: A part was damaged since it was looked up.
        StoreError: The store cannot be read or written.
    """
    tables = (_table_at(store, kind, key) for kind in IDS for key in store.list(f"tables/{kind}"))
    for table in filter(None, tables):
        if merged := compact(table, table.look(), LARGE, 1):
            yield table, merged


def _table_at(store: Store, kind: str, key: str) -> GrowingTable | None:
    """Return a table by its key, with the provenance that its parts name; None where it has no part."""
    empty = GrowingTable(store, kind, Provenance(stage=kind, version=0, key=key))
    part = next(empty.parts(), None)
    return None if part is None else GrowingTable(store, kind, read_manifest(part.uri).provenance)


def _bundles(names: Iterable[str], sizes: Mapping[str, int], small: int, in_order: bool) -> Iterator[list[str]]:
    """Yield names of small parts that make a large one together; in order, where no other part may lie in between."""
    bundle: list[str] = []
    for name in names:
        is_small = sizes[name] < small
        if bundle and ((in_order and not is_small) or sum(sizes[own] for own in bundle) + sizes[name] > LARGE):
            yield bundle
            bundle = []
        if is_small:
            bundle.append(name)
    yield bundle


def _merge(table: GrowingTable, found: Parts, names: list[str]) -> Artifact | None:
    """Commit the rows of some parts as one; a row that two of them hold is taken from the first."""
    parts = {name: part for name in names if (part := found.find(name)) is not None}
    if len(parts) < 2:
        return None
    tables = list(in_parallel(read_table, parts.values(), READ_AHEAD))
    rows = first_of_each(pa.concat_tables(tables), IDS[table.kind])
    replaces = {name: part.digest for name, part in parts.items()}
    for part in parts.values():
        replaces |= replaced_by(part)
    sources = sha256_of(json.dumps(sorted(replaces.items())).encode())
    stats: dict[str, Any] = {REPLACES: replaces}
    if differs := _differing(parts, tables, rows):
        stats[DIFFERS] = differs
    return table.append(f"{names[0].partition(MERGED)[0]}{MERGED}{sources[:16]}", rows, **stats)


def _differing(parts: Mapping[str, Artifact], tables: list[pa.Table], merged: pa.Table) -> list[str]:
    """Return the names of parts with a row that their merged rows do not have: what belongs to it is of no use there.

    Such as the rewards of completions that two runs drew at once, on GPUs that round otherwise.
    """
    if merged.num_rows == sum(rows.num_rows for rows in tables):
        return [name for part in parts.values() for name in part.stats.get(DIFFERS, [])]
    told = [field.name for field in merged.schema if not pa.types.is_nested(field.type)]
    every = first_of_each(merged, told).num_rows
    names: list[str] = []
    for (name, part), rows in zip(parts.items(), tables, strict=True):
        has_others = first_of_each(pa.concat_tables([merged, rows]), told).num_rows > every
        names += [name, *replaced_by(part)] if has_others else part.stats.get(DIFFERS, [])
    return names


def first_of_each(table: pa.Table, ids: Iterable[str]) -> pa.Table:
    """Return a table's rows in their order, of rows with equal ids the first alone."""
    numbered = table.select(list(ids)).append_column("row", pa.array(np.arange(table.num_rows)))
    first = numbered.group_by(list(ids)).aggregate([("row", "min")])["row_min"].to_numpy()
    return table if len(first) == table.num_rows else table.take(np.sort(first))
