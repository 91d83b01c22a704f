"""Slices of tables that grow: the parts, and the prompts and completions of each, that are a stage's own.

A stage's artifact holds no rows; its `slices.json` names the slices.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.store.artifacts import Artifact, safe_path
from tasks.store.drafts import Draft
from tasks.store.filesystem import in_parallel
from tasks.store.folders import AT_ONCE, Store
from tasks.store.growing import index_parts
from tasks.store.manifests import read_bytes
from tasks.store.parquet import read_columns, read_table
from tasks.store.schemas import add_digests, format_digest, rows_digest

SLICES = "slices.json"
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
        if columns is None:
            return self._rows_of(read_table(self.part))
        return self._rows_of(read_table(self.part, self._needed(columns))).select(columns)

    def read_columns(self, columns: list[str]) -> pa.Table:
        """Return some columns of the slice, whose part has been verified before, and read no others."""
        return self._rows_of(read_columns(self.part, self._needed(columns))).select(columns)

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

    def _chosen(self) -> dict[str, frozenset[str] | frozenset[int]]:
        """Return column -> ids whose rows count, of the columns of which not all do."""
        chosen = {"prompt_id": self.prompt_ids, "completion_id": self.completion_ids}
        return {name: ids for name, ids in chosen.items() if ids is not None}

    def _needed(self, columns: list[str]) -> list[str]:
        """Return columns, and those by which the rows that count are told."""
        return list(dict.fromkeys([*columns, *self._chosen()]))

    def _rows_of(self, table: pa.Table) -> pa.Table:
        """Return the rows of the part's table that count, their ids raised."""
        for name, ids in self._chosen().items():
            wanted = pa.array(sorted(ids), table.schema.field(name).type)
            table = table.filter(pc.is_in(table[name], wanted))
        if self.shift and "completion_id" in table.column_names:
            return raise_ids(table, ["completion_id"], self.shift)
        return table


def raise_ids(table: pa.Table, columns: Iterable[str], by: int) -> pa.Table:
    """Return a table with some columns of completion ids raised by a number."""
    for name in columns:
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pc.add(table[name], pa.scalar(by, pa.int32())))
    return table


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


def texts_by_prompt(slices: Iterable[Slice]) -> Iterator[tuple[str, list[str]]]:
    """Yield each prompt with its completions, in the order of their ids."""
    for drawn in read_whole_prompts(slices, ["prompt_id", "completion_id", "completion"]):
        rows = sort_rows(drawn).to_pylist()
        for prompt_id, own in itertools.groupby(rows, key=lambda row: str(row["prompt_id"])):
            yield prompt_id, [row["completion"] for row in own]


def read_group(group: list[Slice], columns: list[str] | None = None) -> pa.Table:
    """Return the rows of slices that are read together."""
    return pa.concat_tables([slice_.read(columns) for slice_ in group])


def read_ahead(slices: Iterable[Slice], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of each slice, verified, the next ones already on their way; `columns` as for `Slice.read`."""
    return in_parallel(lambda slice_: slice_.read(columns), slices, READ_AHEAD)


def column_pieces(slices: Iterable[Slice], columns: list[str]) -> Iterator[pa.Table]:
    """Yield some columns of each slice, in order, the next ones on their way: for figures over a whole table.

    No text and no tokens are read for them. The parts have been verified before, as `Store.find` and
    `GrowingTable.append` do.

    Raises:
        DamagedArtifactError: A part is missing, or cannot be decoded.
        StoreError: The store cannot be read.
    """
    return in_parallel(lambda slice_: slice_.read_columns(columns), slices, AT_ONCE)


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
    if draft.writes_to is draft.store:  # a dry run changes nothing there
        index_parts(draft.store, parts)
    return draft.commit(kind, files, digest, rows=rows, stats=stats, parts=parts)


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
