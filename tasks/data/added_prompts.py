"""Prompts that keep coming: an append-only table in the store, read by runs whose `data.prompts` is `added`.

Each addition is one part, `tables/prompts/<table key>/<number>-<hash of its rows>`. The numbers count up, so that parts
are read in the order in which they came. Additions at the same time may hold a prompt twice; readers take it once.
"""

import hashlib
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import pyarrow as pa

from tasks.config.errors import ConfigurationError
from tasks.data.records import Record
from tasks.data.tally import Tally
from tasks.store.artifacts import Artifact, DamagedArtifactError, sha256_of
from tasks.store.drafts import canonical_json, keyed
from tasks.store.filesystem import in_parallel
from tasks.store.folders import AT_ONCE, Store
from tasks.store.growing import READ_AHEAD, GrowingTable
from tasks.store.parquet import read_columns, read_table
from tasks.store.schemas import SCHEMAS

TABLE_VERSION = 1
_BATCH = 1_000


def added_table(store: Store) -> GrowingTable:
    """Return the table of all prompts that were added to a store."""
    return GrowingTable(store, "prompts", keyed("prompts", TABLE_VERSION, {}, {}, {}))


def append_prompts(store: Store, rows: Mapping[str, dict[str, Any]]) -> int:
    """Add the prompts that the table does not have yet, in one part: all of them or, if this dies, none.

    The same rows added to the same table make the same part, so that additions may be repeated or run at once.

    Args:
        store: Where the table is.
        rows: Rows of a prompts table by prompt_id.

    Returns:
        How many prompts were new.
    """
    table = added_table(store)
    parts = list(table.parts())
    held = in_parallel(lambda part: read_columns(part, ["prompt_id"])["prompt_id"].to_pylist(), parts, AT_ONCE)
    known = set(chain.from_iterable(held))
    new = [row for prompt_id, row in rows.items() if prompt_id not in known]
    if new:
        number = int(_name(parts[-1]).partition("-")[0]) + 1 if parts else 0
        table.append(f"{number:08d}-{_hash(new)}", pa.Table.from_pylist(new, schema=SCHEMAS["prompts"]))
    return len(new)


def find_added(store: Store) -> Artifact:
    """Return the prompts added up to now: `stats` pins the parts, so that later ones do not change what is read.

    Raises:
        ConfigurationError: No prompts have been added.
        DamagedArtifactError: A part is damaged. It is data, so the run must not go on without it.
    """
    table = added_table(store)
    parts = {_name(part): part for part in table.parts()}
    for name in set(store.list(table.folder)) - parts.keys():
        # No manifest: an addition under way. Found by now: an addition that has just come.
        if store.has_manifest(f"{table.folder}/{name}") and table.find(name) is None:
            where = f"{store.uri}/{table.folder}/{name}"
            raise DamagedArtifactError(f"{where} is damaged: delete it and add its prompts again")
    if not parts:
        raise ConfigurationError(
            f"no prompts have been added to {store.uri}: run `python -m flows.add_prompts FILE --store {store.uri}`, "
            "or name a file in data.prompts"
        )
    pins = {name: part.digest for name, part in parts.items()}
    digest = sha256_of(canonical_json(list(pins.items())).encode())
    rows = sum(part.rows for part in parts.values())
    return Artifact(kind="data", uri=f"{store.uri}/{table.folder}", digest=digest, rows=rows, stats={"parts": pins})


def read_added(added: Artifact, tally: Tally) -> Iterator[tuple[str, Record]]:
    """Yield place and content of each prompt in the pinned parts, verified, a few parts in memory at a time.

    Raises:
        DamagedArtifactError: A part is missing, damaged, or not the one that was pinned.
    """
    pins = added.stats["parts"].items()
    parts = [Artifact(kind="prompts", uri=f"{added.uri}/{name}", digest=digest) for name, digest in pins]
    tables = in_parallel(read_table, parts, READ_AHEAD)
    for batch in chain.from_iterable(table.to_batches(_BATCH) for table in tables):
        for row in batch.to_pylist():
            tally.total += 1
            where = f"{row['source']} prompt {row['prompt_id']}"
            yield where, Record(row["messages"], row["reference_completion"], metadata=row["metadata"])


def _name(part: Artifact) -> str:
    return part.uri.rpartition("/")[2]


def _hash(rows: list[dict[str, Any]]) -> str:
    """Return a hash of rows in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(canonical_json(row).encode())
    return digest.hexdigest()[:32]
