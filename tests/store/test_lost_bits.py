"""Bits that a disk loses by itself, which no size, time or inode shows: found as they are read, and computed again."""

from pathlib import Path

import pytest
from commits import MODEL, commit_model
from growing import completions
from small_stores import PROVENANCE

from tasks.sampling.drawing import Request
from tasks.store.artifacts import Artifact, DamagedArtifactError, sha256_of
from tasks.store.copies import fetch
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable, index_parts
from tasks.store.hashed import remember, tag_of
from tasks.store.manifests import read_files
from tasks.store.slices import completions_of


def lose_bit(part: Artifact, place: int) -> None:
    """Flip a bit of a part's rows, and have this machine remember the file as it was."""
    entry = read_files(part)["rows.parquet"]
    uri = f"{part.uri}/{entry.path}"
    flip(Path(uri.removeprefix("file://")), place, uri)


def flip(path: Path, place: int, name: str) -> None:
    """Flip a bit of a file, and have this machine remember the file as it was, under the name that it is kept by."""
    before, data = sha256_of(path), bytearray(path.read_bytes())
    data[place] ^= 1 << place % 8
    path.write_bytes(data)
    stat = path.stat()
    remember(name, stat.st_size, tag_of(stat), before)


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


def test_a_bit_that_a_model_has_lost_is_found_before_it_is_computed_with(tmp_path):
    store = Store(str(tmp_path / "store"))
    model = commit_model(store)
    uri = f"{model.uri}/{read_files(model)['model.safetensors'].path}"
    flip(Path(uri.removeprefix("file://")), 100, uri)
    assert store.find("m/1") == model
    with pytest.raises(DamagedArtifactError, match="run again"):
        fetch(model)
    assert store.find("m/1") is None
    assert commit_model(store) == model
    assert (fetch(model) / "model.safetensors").read_bytes() == MODEL["model.safetensors"]


@pytest.mark.parametrize("store_uri", ["s3"], indirect=True)
def test_a_bit_that_a_local_copy_has_lost_is_copied_again(store, tmp_path, monkeypatch):
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path))
    model = commit_model(store)
    copy = fetch(model) / "model.safetensors"
    flip(copy, 100, str(copy))
    assert (fetch(model) / "model.safetensors").read_bytes() == MODEL["model.safetensors"]


@pytest.mark.parametrize("place", [0, 30, -40])
def test_a_bit_that_the_manifest_of_an_indexed_part_has_lost_is_found_and_the_part_is_made_again(tmp_path, place):
    store = Store(str(tmp_path / "store"))
    table = GrowingTable(store, "completions", PROVENANCE)
    rows = completions([Request("a", 0, 4)])
    part = table.append("a", rows)
    index_parts(store, {store.folder_of(part): part.digest})
    uri = f"{part.uri}/manifest.json"
    flip(Path(uri.removeprefix("file://")), place, uri)
    assert list(table.parts()) == [part], "as the index and the listing say"
    with pytest.raises(DamagedArtifactError, match="run again"):
        completions_of(part)
    assert list(table.parts()) == []
    assert table.append("a", rows) == part
    assert completions_of(part) == [(frozenset(range(4)), ["a"])]
