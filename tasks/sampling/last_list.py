"""The last list of slices of a table of completions: what the next run's selection begins with.

It covers k completions of each of its prompts, so where they are all wanted again, what is in its parts need not be
looked at. `last.json` in the table's folder names it: a hint, which may be old, damaged or missing.
"""

from collections.abc import Iterable
from contextlib import suppress

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ValidationError

from tasks.store.artifacts import Artifact, DamagedArtifactError, SafePath
from tasks.store.filesystem import open_fs, persist, read_small_file
from tasks.store.growing import GrowingTable, Parts, replaced_by
from tasks.store.manifests import reference
from tasks.store.parquet import read_columns
from tasks.store.slices import Slice, read_slices

LAST = "last.json"


class LastList(BaseModel):
    """Where the last list is, and what it covers."""

    slices: SafePath
    """Folder of the artifact with the list."""
    prompts: SafePath
    """Folder of the prompts that it covers."""
    k: int
    """Completions of each of them."""


def note_last(table: GrowingTable, slices: str, prompts: Artifact, k: int) -> None:
    """Name a list of slices as the table's last one.

    Args:
        table: The table of completions.
        slices: Folder of the artifact with the list.
        prompts: The prompts that it covers.
        k: Completions of each of them.
    """
    last = LastList(slices=slices, prompts=table.store.folder_of(prompts), k=k)
    table.store.write_beside(table.folder, LAST, last.model_dump_json().encode())


def read_last(
    table: GrowingTable, found: Parts, wanted: pa.ChunkedArray, k: int
) -> tuple[list[Slice], pa.ChunkedArray]:
    """Return the slices of the last list, and which of the wanted prompts it does not cover.

    Nothing of it is returned where it has other prompts too, another k or number of rows than the hint says, or a part
    that is not there any more.

    Args:
        table: The table of completions.
        found: Its parts.
        wanted: (prompts,) ids.
        k: Completions of each that are wanted.
    """
    with suppress(FileNotFoundError, ValidationError, DamagedArtifactError):
        last = _read(table)
        if last.k != k:
            return [], wanted
        ids = prompt_ids(reference(f"{table.store.uri}/{last.prompts}"))
        rest = wanted.filter(pc.invert(pc.is_in(wanted, ids)))
        if len(wanted) - len(rest) < len(ids):  # the list has prompts that are not wanted
            return [], wanted
        listed = reference(f"{table.store.uri}/{last.slices}")
        slices = read_slices(table.store, listed)
        if listed.rows == len(ids) * k and all(_is_there(slice_.part, found) for slice_ in slices):
            return slices, rest
    return [], wanted


def prompt_ids(prompts: Artifact) -> pa.ChunkedArray:
    """Return the ids of a table's prompts: (prompts,)."""
    return read_columns(prompts, ["prompt_id"])["prompt_id"]


def merged_parts(slices: Iterable[Slice], found: Parts) -> dict[str, Artifact]:
    """Return, of slices whose parts were merged since, the part's URI -> the part that has its rows now.

    Merged parts are left out where some of their rows do not count, or were in several parts. Of several that hold
    the same part, since they were merged again or at once, the largest one has its rows.
    """
    whole = {_name(slice_.part): slice_.part for slice_ in slices if slice_.is_whole}
    merged: dict[str, Artifact] = {}
    for part in sorted(found.merged, key=lambda part: -part.rows):
        own = [whole[name] for name, digest in replaced_by(part).items() if _holds(whole.get(name), digest)]
        if sum(each.rows for each in own) == part.rows and merged.keys().isdisjoint(each.uri for each in own):
            merged |= {each.uri: part for each in own}
    return merged


def _holds(part: Artifact | None, digest: str) -> bool:
    return part is not None and part.digest == digest


def _read(table: GrowingTable) -> LastList:
    fs, path = open_fs(f"{table.uri}/{LAST}")
    return LastList.model_validate_json(persist(lambda: read_small_file(fs, path), table.uri, "read"))


def _is_there(part: Artifact, found: Parts) -> bool:
    return _holds(found.find(_name(part)), part.digest)


def _name(part: Artifact) -> str:
    return part.uri.rpartition("/")[2]
