"""Pruning: what stays and what goes, pruning that is interrupted, and what is refused."""

import os
import time
from pathlib import Path

import pytest
from chains import Origin, chain, checkpoint, everything, folder_set, folders, output, part, record

from tasks.inspection import prune as module
from tasks.inspection.catalog import read_catalog
from tasks.inspection.prune import prune
from tasks.store.artifacts import DamagedArtifactError
from tasks.store.folders import Store
from tasks.store.runs import list_runs, read_runs

# What stays and what goes


def test_what_served_to_make_an_artifact_stays_and_the_artifact_is_whole_without_it(store):
    served, other = part(store, "served", "ref_logps"), part(store, "other", "ref_logps")
    aligned = output(store, "train_dpo", "dpo", Origin(keeps=[served]))
    record(store, [aligned])
    assert {entry.folder for entry in prune(store, 1).entries} == {store.folder_of(other)}
    assert store.find(store.folder_of(served)) == served
    store.delete("tables/ref_logps")
    assert store.find(store.folder_of(aligned)) == aligned
    catalog = read_catalog(store)
    assert catalog.entries[store.folder_of(aligned)].damage == ""
    assert prune(store, 1).entries == []


@pytest.mark.parametrize("damage", ["missing", "emptied"])
def test_parts_stay_where_nobody_knows_which_a_kept_run_names(tmp_path, damage):
    store = Store(str(tmp_path))
    own = chain(store, "new")
    record(store, [own.prompts, own.policy, own.completions, own.aligned])
    manifest = tmp_path / store.folder_of(own.completions) / "manifest.json"
    manifest.unlink() if damage == "missing" else manifest.write_text("")
    assert prune(store, 1).entries == []
    assert all(store.find(store.folder_of(part)) for part in own.parts)


def test_the_last_runs_stay_whole_and_the_others_go(store):
    old = chain(store, "old")
    new = chain(store, "new", shared=old.parts[:1])
    record(store, [old.prompts, old.policy, old.completions, old.aligned])
    kept = record(store, [new.aligned])  # the rest is reached from its inputs
    assert folders(store) == everything(store, old) | everything(store, new)

    foreseen = prune(store, 1, dry_run=True)
    assert folders(store) == everything(store, old) | everything(store, new)
    pruned = prune(store, 1)
    assert pruned == foreseen
    assert folders(store) == everything(store, new)
    assert all(store.find(folder) for folder in everything(store, new))
    assert {entry.folder for entry in pruned.entries} == everything(store, old) - everything(store, new)
    assert read_runs(store) == [kept]
    assert not prune(store, 1).entries


def test_the_bytes_that_are_told_are_freed(tmp_path):
    store = Store(str(tmp_path / "store"))
    old, new = chain(store, "old"), chain(store, "new")
    record(store, [old.aligned])
    record(store, [new.aligned])
    (tmp_path / "store" / store.folder_of(old.aligned) / ".partial-xyz").write_bytes(b"x" * 1000)

    def used() -> int:
        files = (path for path in (tmp_path / "store").rglob("*") if path.is_file() and "runs" not in path.parts)
        return sum(path.stat().st_size for path in files)

    before = used()
    assert prune(store, 1).size == before - used() > 1000


def test_equal_content_under_another_key_serves_as_well(tmp_path):
    store = Store(str(tmp_path))
    first = output(store, "load_prompts", "first", content="same")
    second = output(store, "load_prompts", "second", content="same")
    policy = output(store, "train_sft", "policy", Origin({"demonstrations": first.digest}))
    record(store, [second, policy])
    assert first.digest == second.digest
    prune(store, 1)
    assert folders(store) == folder_set(store, second, policy)


def test_checkpoints_go_and_stay_with_their_stage(store):
    old, new = chain(store, "old"), chain(store, "new")
    record(store, [old.policy])
    record(store, [new.policy])
    gone, kept = checkpoint(store, old.policy, 10), checkpoint(store, new.policy, 20)
    prune(store, 1)
    assert store.find(store.folder_of(kept)) == kept
    assert store.find(store.folder_of(gone)) is None


@pytest.mark.parametrize("kind", ["prompts", "added_preferences", "judgments"])
def test_what_people_added_stays(store, kind):
    old = chain(store, "old")
    added = part(store, "00000001-abc", kind=kind)
    record(store, [old.aligned])
    record(store, [])
    prune(store, 1)
    assert folders(store) == folder_set(store, added)


def test_strangers_are_left_alone(store):
    old, key = chain(store, "old"), "a" * 64
    strangers = [
        "notes.txt",
        "train_sft/README",
        f"train_sft/{key[:-1]}/manifest.json",
        f"backups/{key}/weights.bin",
        f"tables/completions/{key}.parquet",
        "runs/readme/notes.txt",
        "world/prompts.jsonl",
    ]
    for name in strangers:
        store._put(b"mine", name)
    record(store, [old.aligned])
    record(store, [])
    prune(store, 1)
    assert folders(store) <= {f"backups/{key}"}
    assert all(store.fs.cat_file(store.path(name)) == b"mine" for name in strangers)


def test_what_dead_writers_left_goes_after_a_day(tmp_path):
    store = Store(str(tmp_path))
    old, new = chain(store, "old"), chain(store, "new")
    record(store, [old.policy, old.aligned], status="running")
    record(store, [new.aligned])
    for artifact in (old.policy, old.aligned, old.parts[0]):
        (tmp_path / store.folder_of(artifact) / "manifest.json").unlink()
    (file,) = (tmp_path / store.folder_of(old.aligned)).glob("*/data")
    long_ago = time.time() - 25 * 3600
    os.utime(file, (long_ago, long_ago))
    prune(store, 1)
    assert folders(store) == everything(store, new) | folder_set(store, old.policy, old.parts[0])


# Pruning that is interrupted, and what is refused


@pytest.mark.parametrize("survives", range(0, 10, 3))
def test_a_prune_that_dies_leaves_nothing_that_looks_whole_and_goes_on(tmp_path, survives, monkeypatch):
    store = Store(str(tmp_path))
    old, new = chain(store, "old"), chain(store, "new")
    record(store, [old.prompts, old.policy, old.completions, old.aligned])
    kept = record(store, [new.aligned])
    removed, remove = [], store.fs.rm

    def failing_remove(path: str, recursive: bool = False) -> None:
        if len(removed) >= survives:
            raise OSError("the power is gone")
        removed.append(path)
        remove(path, recursive=recursive)

    with monkeypatch.context() as patch:
        patch.setattr(type(store.fs), "rm", lambda self, path, recursive=False: failing_remove(path, recursive))
        patch.setattr(module, "WORKERS", 1)
        with pytest.raises(OSError, match="the power is gone"):
            prune(store, 1)
    gone = {path.removeprefix(store.root + "/").removesuffix("/manifest.json") for path in removed}
    assert all(store.find(folder) is None for folder in gone - {"runs"})
    assert all(store.find(folder) for folder in everything(store, new))
    for file in Path(tmp_path).rglob("*"):  # a day later, when what lost its manifest is no longer spared
        os.utime(file, (time.time() - 90_000,) * 2)
    prune(store, 1)
    assert folders(store) == everything(store, new)
    assert read_runs(store) == [kept]


def test_a_store_without_records_is_not_pruned(store):
    made = chain(store, "old")
    with pytest.raises(ValueError, match="no record of any run"):
        prune(store, 1)
    assert folders(store) == everything(store, made)


def test_a_record_that_cannot_be_read_stops_it(store, damage):
    made = chain(store, "old")
    run = record(store, [made.aligned])
    record(store, [])
    damage(f"{store.uri}/runs/{run.id}/manifest.json", "flip")
    with pytest.raises(DamagedArtifactError, match="delete it if the run is over"):
        prune(store, 1)
    assert folders(store) == everything(store, made)
    assert list_runs(store)[1] == [f"runs/{run.id}"]


def test_bad_requests_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        prune(Store(str(tmp_path)), 0)
    with pytest.raises(ValueError, match="there is no store"):
        prune(Store(str(tmp_path / "none")), 1)
    assert list(tmp_path.iterdir()) == []
