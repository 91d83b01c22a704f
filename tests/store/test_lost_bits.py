"""Bits that a disk loses by itself, which no size, time or inode shows: found as they are read, and computed again."""

from pathlib import Path

import pytest
from growing import completions
from small_stores import PROVENANCE

from tasks.sampling.drawing import Request
from tasks.store.artifacts import Artifact, DamagedArtifactError
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.hashed import remember, tag_of
from tasks.store.manifests import read_files
from tasks.store.slices import completions_of


def lose_bit(part: Artifact, place: int) -> None:
    """Flip a bit of a part's rows, and have this machine remember the file as it was."""
    entry = read_files(part)["rows.parquet"]
    uri = f"{part.uri}/{entry.path}"
    path = Path(uri.removeprefix("file://"))
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << place % 8
    path.write_bytes(data)
    stat = path.stat()
    remember(uri, stat.st_size, tag_of(stat), entry.sha256)


@pytest.mark.parametrize("place", [-10, *range(20, 1200, 60)])
def test_a_bit_that_was_lost_is_found_before_anything_is_selected_and_the_part_is_made_again(tmp_path, place):
    table = GrowingTable(Store(str(tmp_path / "store")), "completions", PROVENANCE)
    rows = completions([Request(f"{number:064d}", 0, 4) for number in range(9)])
    part = table.append("a", rows)
    lose_bit(part, place)
    assert list(table.parts()) == [part], "what a look-up knows of it is what the machine remembers"
    with pytest.raises(DamagedArtifactError, match="run again"):
        completions_of(part)
    assert list(table.parts()) == []
    assert table.append("a", rows) == part
    assert sum(len(prompts) for _, prompts in completions_of(part)) == 9
