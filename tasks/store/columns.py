"""Single columns of slices: what figures over a whole table are made of.

No text and no tokens are read for them, and of no slice more than these columns is in memory.
"""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from tasks.store.filesystem import in_parallel
from tasks.store.folders import AT_ONCE
from tasks.store.parquet import read_columns
from tasks.store.slices import Slice


def column_pieces(slices: Iterable[Slice], columns: list[str]) -> Iterator[pa.Table]:
    """Yield some columns of each slice, in order, the next ones on their way; of the columns, none is an id.

    The parts have been verified before, as `Store.find` and `GrowingTable.append` do.

    Raises:
        DamagedArtifactError: A part is missing, or cannot be decoded.
        StoreError: The store cannot be read.
    """
    return in_parallel(lambda slice_: _columns_of(slice_, columns), slices, AT_ONCE)


def _columns_of(slice_: Slice, columns: list[str]) -> pa.Table:
    chosen = {"prompt_id": slice_.prompt_ids, "completion_id": slice_.completion_ids}
    table = read_columns(slice_.part, [*columns, *(name for name, ids in chosen.items() if ids is not None)])
    for name, ids in chosen.items():
        if ids is not None:
            wanted = pa.array(sorted(ids), table.schema.field(name).type)
            table = table.filter(pc.is_in(table[name], wanted))
    return table.select(columns)
