"""Tables that people add to: append-only, and read as they were when a run began.

Each addition is one part, `tables/<kind>/<table key>/<number>-<hash of its rows>`. The numbers count up, so that parts
are read in the order in which they came. Additions at the same time may hold a row twice; readers take it once.
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

import pyarrow as pa

from tasks.config.errors import ConfigurationError
from tasks.store.artifacts import Artifact, DamagedArtifactError, sha256_of
from tasks.store.compaction import compact
from tasks.store.drafts import canonical_json, keyed
from tasks.store.filesystem import in_parallel
from tasks.store.folders import AT_ONCE, Store
from tasks.store.growing import GrowingTable, index_parts
from tasks.store.parquet import ROWS_AT_ONCE, read_columns, read_table, rows_of
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import READ_AHEAD


class AddedRows(NamedTuple):
    """What is added to a store by hand, of one kind."""

    name: str
    """What the rows are called, as in `data.prompts` and `flows.add_prompts`."""
    kind: str
    """Kind of the table."""
    version: int
    id_column: str
    """Column that tells rows apart."""

    def table(self, store: Store) -> GrowingTable:
        """Return the table of all that was added to a store."""
        return GrowingTable(store, self.kind, keyed(self.kind, self.version, {}, {}, {}))

    def ids(self, store: Store) -> set[str]:
        """Return the ids of all rows."""
        return self._ids_of(list(self.table(store).parts()))

    def lay_out(self, rows: Iterable[dict[str, Any]]) -> pa.Table:
        """Return rows as a table, few of them as Python objects at once."""
        schema, waiting, batches = SCHEMAS[self.kind], iter(rows), list[pa.RecordBatch]()
        while piece := list(islice(waiting, ROWS_AT_ONCE)):
            batches.append(pa.RecordBatch.from_pylist(piece, schema))
        return pa.Table.from_batches(batches, schema).combine_chunks()

    def append(self, store: Store, rows: pa.Table) -> int:
        """Add the rows that the table does not have yet, in one part: all of them or, if this dies, none.

        The same rows added to the same table make the same part, so that additions may be repeated or run at once.

        Args:
            store: Where the table is.
            rows: As `lay_out` returns them, each once.

        Returns:
            How many rows were new.
        """
        table = self.table(store)
        parts = list(table.parts())
        known = self._ids_of(parts)
        new = rows.filter(pa.array([id_ not in known for id_ in rows[self.id_column].to_pylist()], pa.bool_()))
        if new.num_rows:
            number = int(_name(parts[-1]).partition("-")[0]) + 1 if parts else 0
            part = table.append(f"{number:08d}-{_hash(new)}", new.combine_chunks())
            index_parts(store, {store.folder_of(part): part.digest})
            compact(table, table.look())
        return int(new.num_rows)

    def find(self, store: Store) -> Artifact:
        """Return what was added up to now: `stats` pins the parts, so that later ones do not change what is read.

        Raises:
            ConfigurationError: Nothing has been added.
            DamagedArtifactError: A part is damaged. It is data, so the run must not go on without it.
        """
        table = self.table(store)
        parts = {_name(part): part for part in table.parts()}
        for name in set(store.list(table.folder)) - parts.keys():
            # No manifest: an addition under way. Found by now: an addition that has just come.
            if store.has_manifest(f"{table.folder}/{name}") and table.find(name) is None:
                where = f"{store.uri}/{table.folder}/{name}"
                raise DamagedArtifactError(f"{where} is damaged: delete it and add its {self.name} again")
        if not parts:
            raise ConfigurationError(
                f"no {self.name} have been added to {store.uri}: run `python -m flows.add_{self.name} FILE --store "
                f"{store.uri}`, or name a file in data.{self.name}"
            )
        pins = {name: part.digest for name, part in parts.items()}
        digest = sha256_of(canonical_json(list(pins.items())).encode())
        rows = sum(part.rows for part in parts.values())
        uri = f"{store.uri}/{table.folder}"
        return Artifact(kind="data", uri=uri, digest=digest, rows=rows, stats={"parts": pins})

    def read(self, added: Artifact) -> Iterator[dict[str, Any]]:
        """Yield each row of the pinned parts, verified, a few parts in memory at a time.

        Raises:
            DamagedArtifactError: A part is missing, damaged, or not the one that was pinned.
        """
        pins = added.stats["parts"].items()
        parts = [Artifact(kind=self.kind, uri=f"{added.uri}/{name}", digest=digest) for name, digest in pins]
        tables = in_parallel(read_table, parts, READ_AHEAD)
        for table in tables:
            yield from rows_of(table)

    def _ids_of(self, parts: list[Artifact]) -> set[str]:
        column = self.id_column
        held = in_parallel(lambda part: read_columns(part, [column])[column].to_pylist(), parts, AT_ONCE)
        return set(chain.from_iterable(held))


def _name(part: Artifact) -> str:
    return part.uri.rpartition("/")[2]


def _hash(rows: pa.Table) -> str:
    """Return a hash of rows in their order."""
    digest = hashlib.sha256()
    for row in rows_of(rows):
        digest.update(canonical_json(row).encode())
    return digest.hexdigest()[:32]
