"""Tables that grow: parts shared by every run with the same model and settings, and slices of them.

A part is a committed folder under `tables/<kind>/<table key>/<part>`. A stage's artifact holds no rows; its
`slices.json` names the parts, and the prompts of each part, that are its own.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from tasks.artifacts import Artifact, Manifest, Provenance, safe_path, sha256_of
from tasks.drafts import Draft
from tasks.filesystem import in_parallel
from tasks.parquet import read_column, read_table, table_bytes
from tasks.schemas import SCHEMAS, add_digests, format_digest, rows_digest
from tasks.storage import AT_ONCE, Store, read_bytes

SLICES = "slices.json"
READ_AHEAD = 4
"""Parts that are held in memory at once."""


class Slice(NamedTuple):
    """A part, and which of its prompts count; None: all of them."""

    part: Artifact
    prompt_ids: frozenset[str] | None = None

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """Return the rows of the slice, verified; of some columns, `prompt_id` among them, or of all."""
        table = read_table(self.part, columns)
        if self.prompt_ids is None:
            return table
        return table.filter(pc.is_in(table["prompt_id"], pa.array(sorted(self.prompt_ids), pa.string())))

    def measure(self) -> tuple[int, int]:
        """Return the number of the slice's rows, and their digest."""
        if self.prompt_ids is None:
            return self.part.rows, int(self.part.digest, 16)
        rows = self.read()
        return rows.num_rows, rows_digest(rows)

    def digest(self) -> int:
        """Return the digest of the slice's rows."""
        return self.measure()[1]


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

    def parts(self) -> Iterator[Artifact]:
        """Return the complete, undamaged parts, in the order of their names; each is looked up as it is asked for."""
        found = in_parallel(self.find, self.store.list(self.folder), AT_ONCE)
        return (part for part in found if part is not None)

    def append(self, name: str, table: pa.Table, **stats: Any) -> Artifact:
        """Commit rows as a part; one of this name that is there already stays, since others may have read it.

        Raises:
            StoreError: The part could not be written.
        """
        if (found := self.find(name)) is not None:
            return found
        table = table.select(SCHEMAS[self.kind].names).cast(SCHEMAS[self.kind])
        digest = format_digest(rows_digest(table))
        manifest = Manifest(kind=self.kind, digest=digest, rows=table.num_rows, stats=stats, provenance=self.provenance)
        return self.store.commit(f"{self.folder}/{name}", {"rows.parquet": table_bytes(table, self.kind)}, manifest)


def select_slices(parts: Iterable[Artifact], wanted: set[str]) -> tuple[list[Slice], set[str]]:
    """Return the slices that cover the wanted prompts, each prompt once, and the prompts that no part has."""
    slices: list[Slice] = []
    missing = set(wanted)
    if not missing:
        return slices, missing
    for part, held in in_parallel(lambda part: (part, _prompt_ids(part)), parts, AT_ONCE):
        taken = held & missing
        if taken:
            slices.append(Slice(part, None if taken == held else frozenset(taken)))
            missing -= taken
        if not missing:
            break
    return slices, missing


def _prompt_ids(part: Artifact) -> set[str]:
    return set(read_column(part, "prompt_id").unique().to_pylist())


def read_ahead(slices: Iterable[Slice], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of each slice, verified, the next ones already on their way; `columns` as for `Slice.read`."""
    return in_parallel(lambda slice_: slice_.read(columns), slices, READ_AHEAD)


def commit_slices(draft: Draft, kind: str, slices: list[Slice], stats: dict[str, Any]) -> Artifact:
    """Commit a stage's artifact: its slices, under the digest of their rows."""
    listing = [
        {
            "part": draft.store.folder_of(slice_.part),
            "digest": slice_.part.digest,
            "rows": slice_.part.rows,
            "prompt_ids": None if slice_.prompt_ids is None else sorted(slice_.prompt_ids),
        }
        for slice_ in slices
    ]
    measures = list(in_parallel(Slice.measure, slices, READ_AHEAD))
    rows, digest = sum(rows for rows, _ in measures), format_digest(add_digests(digest for _, digest in measures))
    parts = {str(item["part"]): str(item["digest"]) for item in listing}
    files = {SLICES: json.dumps(listing, indent=0).encode()}
    return draft.commit(kind, files, digest, rows=rows, stats=stats, parts=parts)


def read_slices(store: Store, artifact: Artifact) -> list[Slice]:
    """Return the slices of a stage's artifact.

    Raises:
        DamagedArtifactError: The list of slices is missing or damaged.
        ConfigurationError: It names something outside of the store.
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
        )
        for item in listing
    ]


def part_name(prompt_ids: list[str]) -> str:
    """Return the name of the part that holds these prompts: the same prompts make the same part."""
    return sha256_of(json.dumps(sorted(prompt_ids)).encode())[:32]
