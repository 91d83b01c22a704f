"""Tables that are looked at through a listing and an index: requests are counted, and whatever the index says, the
look-up finds what visiting every part would."""

import json
from collections import Counter
from pathlib import Path

import pytest
from commits import EVERY_STORE
from small_stores import PROVENANCE, completions

from tasks.store import manifests
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.drafts import Draft
from tasks.store.filesystem import read_small_file
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable, index_parts
from tasks.store.index import INDEX
from tasks.store.manifests import read_files
from tasks.store.slices import Slice, commit_slices, read_slices

DAMAGES = ["flip", "truncate", "delete"]
OUT = Provenance(stage="sample_completions", version=1, key="c" * 64)


@pytest.fixture
def visits(monkeypatch) -> Counter[str]:
    """Count the manifests that are read, by folder name."""
    seen: Counter[str] = Counter()

    def counted(fs, path: str) -> bytes:
        if path.endswith("/manifest.json"):
            seen[path.split("/")[-2]] += 1
        return read_small_file(fs, path)

    monkeypatch.setattr(manifests, "read_small_file", counted)
    return seen


def table_of(store: Store) -> GrowingTable:
    return GrowingTable(store, "completions", PROVENANCE)


def commit(store: Store, names: str) -> tuple[list[Artifact], Artifact]:
    """Commit a part by each name, and a list of them all."""
    parts = [table_of(store).append(name, completions(name)) for name in names]
    return parts, commit_slices(Draft(store, OUT), "completions", [Slice(part) for part in parts], {})


@EVERY_STORE
def test_a_list_and_a_table_are_found_without_a_visit_to_any_part(store, visits):
    parts, listed = commit(store, "abcdefgh")
    visits.clear()
    assert store.find(store.folder_of(listed)) == listed
    assert list(table_of(store).parts()) == parts
    assert visits == {"c" * 64: 1}, "of all manifests, the list's own alone"


@EVERY_STORE
def test_parts_that_came_later_are_visited_until_they_are_in_a_list(store, visits):
    parts, _ = commit(store, "abcdefgh")
    late = table_of(store).append("late", completions("late"))
    visits.clear()
    assert list(table_of(store).parts()) == [*parts, late]
    assert visits == {"late": 1}
    index_parts(store, {store.folder_of(late): late.digest})
    visits.clear()
    assert list(table_of(store).parts()) == [*parts, late]
    assert not visits


@EVERY_STORE
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("which", ["rows.parquet", "manifest.json"])
def test_damage_to_an_indexed_part_is_noticed(store, which, how, damage):
    parts, listed = commit(store, "abcdefgh")
    file = which if which == "manifest.json" else read_files(parts[3])[which].path
    damage(f"{parts[3].uri}/{file}", how)
    assert store.find(store.folder_of(listed)) is None
    assert list(table_of(store).parts()) == [*parts[:3], *parts[4:]]
    assert table_of(store).append("d", completions("d")) == parts[3]
    assert store.find(store.folder_of(listed)) == listed


@EVERY_STORE
@pytest.mark.parametrize("how", [*DAMAGES, "nonsense", "another list"])
def test_whatever_happens_to_the_index_the_look_up_finds_the_same(store, how, damage):
    parts, listed = commit(store, "abcdefgh")
    uri, path = f"{table_of(store).uri}/{INDEX}", store.path(f"{table_of(store).folder}/{INDEX}")
    if how in DAMAGES:
        damage(uri, how)
    elif how == "nonsense":
        store.fs.pipe_file(path, b"[1, 2]")
    else:
        index = json.loads(store.fs.cat_file(path))
        index["parts"]["a"]["digest"] = index["parts"]["b"]["digest"]
        store.fs.pipe_file(path, json.dumps(index).encode())
    assert list(table_of(store).parts()) == parts
    assert store.find(store.folder_of(listed)) == listed


def test_a_part_that_holds_something_else_by_now_is_not_taken_for_what_the_index_says(store):
    parts, listed = commit(store, "abcdefgh")
    store.delete(store.folder_of(parts[0]))
    other = table_of(store).append("a", completions("other"))
    assert next(table_of(store).parts()) == other
    assert store.find(store.folder_of(listed)) is None


def test_what_is_written_elsewhere_as_in_a_dry_run_is_not_entered(store):
    parts = [table_of(store).append(name, completions(name)) for name in "abcdefgh"]
    foreseen = Draft(store, OUT, writes_to=Store("memory://foreseen"))
    commit_slices(foreseen, "completions", [Slice(part) for part in parts], {})
    assert not store.fs.exists(store.path(f"{table_of(store).folder}/{INDEX}"))


@pytest.mark.parametrize("store_uri", ["file"], indirect=True)
def test_a_part_behind_a_symbolic_link_is_seen(store, tmp_path):
    parts, listed = commit(store, "abcdefgh")
    place = Path(store.path(store.folder_of(parts[2])))
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert list(table_of(store).parts()) == parts
    assert store.find(store.folder_of(listed)) == listed


def test_slices_of_indexed_parts_are_read_as_they_were(store):
    parts, listed = commit(store, "abcdefgh")
    assert [slice_.part.digest for slice_ in read_slices(store, listed)] == [part.digest for part in parts]
    assert all(
        slice_.read().equals(completions(name))
        for slice_, name in zip(read_slices(store, listed), "abcdefgh", strict=True)
    )
