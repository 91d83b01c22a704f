"""Pruning: what kept runs reach stays whole, the rest goes, and nothing that is in use or not ours is touched."""

import os
import signal
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from chains import checkpoint, hex_of, output, part, record
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.inspection import prune as module
from tasks.inspection.catalog import read_catalog
from tasks.inspection.prune import kept_runs, prune
from tasks.store.artifacts import Artifact, DamagedArtifactError
from tasks.store.folders import Store
from tasks.store.runs import RunRecord, list_runs, process_of, read_runs

STAGES = ["load_prompts", "train_sft", "sample_completions", "train_dpo"]


def folders(store: Store) -> set[str]:
    return set(read_catalog(store).entries)


def folder_set(store: Store, *artifacts: Artifact) -> set[str]:
    return {store.folder_of(artifact) for artifact in artifacts}


class Chain(NamedTuple):
    prompts: Artifact
    policy: Artifact
    parts: list[Artifact]
    completions: Artifact
    aligned: Artifact


def chain(store: Store, name: str, shared: list[Artifact] | None = None) -> Chain:
    """Commit four stages, and two parts beside those that are shared."""
    prompts = output(store, "load_prompts", name)
    policy = output(store, "train_sft", name, {"base_model": hex_of("outside")})
    parts = [*(shared or []), part(store, f"{name}-1"), part(store, f"{name}-2")]
    inputs = {"policy": policy.digest, "prompts": prompts.digest}
    completions = output(store, "sample_completions", name, inputs, parts)
    aligned = output(store, "train_dpo", name, {"policy": policy.digest, "completions": completions.digest})
    return Chain(prompts, policy, parts, completions, aligned)


def everything(store: Store, chain: Chain) -> set[str]:
    return folder_set(store, chain.prompts, chain.policy, *chain.parts, chain.completions, chain.aligned)


# What stays and what goes


def test_what_served_to_make_an_artifact_stays_and_the_artifact_is_whole_without_it(store):
    served, other = part(store, "served", "ref_logps"), part(store, "other", "ref_logps")
    aligned = output(store, "train_dpo", "dpo", keeps=[served])
    record(store, [aligned])
    assert {entry.folder for entry in prune(store, 1).entries} == {store.folder_of(other)}
    assert store.find(store.folder_of(served)) == served
    store.delete("tables/ref_logps")
    assert store.find(store.folder_of(aligned)) == aligned
    catalog = read_catalog(store)
    assert catalog.entries[store.folder_of(aligned)].damage == ""
    assert prune(store, 1).entries == []


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
    policy = output(store, "train_sft", "policy", {"demonstrations": first.digest})
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


def test_added_prompts_stay(store):
    old = chain(store, "old")
    added = part(store, "00000001-abc", kind="prompts")
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


# Which runs are kept


def test_the_last_finished_runs_are_kept_and_those_that_were_interrupted_since(tmp_path):
    store = Store(str(tmp_path))
    statuses = ["finished", "running", "finished", "running", "finished", "running"]
    runs = [record(store, [], status=status) for status in statuses]
    assert kept_runs(runs, 1) == [runs[4], runs[5]]
    assert kept_runs(runs, 2) == [runs[2], runs[3], runs[4], runs[5]]
    assert kept_runs(runs, 9) == runs
    assert kept_runs(runs[1:2], 1) == runs[1:2], "without a finished run nothing is older than it"


def test_what_an_interrupted_run_has_made_can_be_continued(tmp_path):
    store = Store(str(tmp_path))
    before = part(store, "before")
    record(store, [])
    record(store, [], status="running")  # begun after `before` was made
    prune(store, 1)
    assert store.find(store.folder_of(before)) is None
    made = part(store, "since")
    record(store, [], status="running", began=1)
    prune(store, 1)
    assert store.find(store.folder_of(made)) == made


def test_nothing_that_a_run_under_way_uses_goes(store):
    old, other = chain(store, "old"), chain(store, "other")
    alive = {"status": "running", "process": process_of(os.getpid())}
    under_way = record(store, [old.completions], **alive)
    record(store, [old.aligned, other.aligned])
    last = record(store, [])
    prune(store, 1)
    assert folders(store) == (everything(store, old) - folder_set(store, old.aligned)) | folder_set(store, *other.parts)
    assert read_runs(store) == [under_way, last]

    RunRecord(store, under_way).finish({"completions": old.completions})
    record(store, [])
    prune(store, 1)
    assert folders(store) == set()


def test_what_is_made_while_a_run_is_under_way_stays(tmp_path):
    """Its workers' outputs, which it notes nothing of, are not told from others'."""
    store = Store(str(tmp_path))
    RunRecord.begin(store)
    made, half = chain(store, "made"), output(store, "train_dpo", "half")
    (tmp_path / store.folder_of(half) / "manifest.json").unlink()
    record(store, [half])
    record(store, [])
    assert not prune(store, 1).entries
    assert folders(store) == everything(store, made) | folder_set(store, half)


def test_a_run_that_is_under_way_in_another_process_is_in_use(tmp_path):
    store = Store(str(tmp_path))
    old = chain(store, "old")
    script = f"""
import time
from tasks.store.runs import RunRecord
from tasks.store.folders import Store
record = RunRecord.begin(Store({str(tmp_path)!r}))
record.note({store.folder_of(old.aligned)!r})
print("noted", flush=True)
time.sleep(600)"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "noted\n"
        record(store, [])
        assert not prune(store, 1).entries
        child.send_signal(signal.SIGKILL)
        child.wait()
    prune(store, 1)
    assert folders(store) == set()
    assert len(read_runs(store)) == 1


def test_a_run_elsewhere_is_in_use_for_a_week(tmp_path):
    store = Store(str(tmp_path))
    old = chain(store, "old")
    last_week = datetime.now(UTC) - timedelta(days=6)
    elsewhere = record(
        store, [old.aligned], status="running", host="elsewhere", process="elsewhere/pid:[1] 5", began=200
    )
    assert elsewhere.updated > last_week
    record(store, [])
    assert not prune(store, 1).entries


def test_a_run_that_begins_meanwhile_keeps_what_it_looks_at(store, monkeypatch):
    """The store's second deletion is the moment at which another run begins."""
    old = chain(store, "old")
    record(store, [old.aligned])
    record(store, [])
    monkeypatch.setattr(module, "BATCH", 1)
    deleted, delete = [], Store.delete

    def delete_and_begin(self: Store, folder: str) -> None:
        delete(self, folder)
        deleted.append(folder)
        if len(deleted) == 2:
            RunRecord.begin(store).note(store.folder_of(old.aligned))

    monkeypatch.setattr(Store, "delete", delete_and_begin)
    prune(store, 1)
    assert store.find(store.folder_of(old.aligned)) == old.aligned
    assert all(store.find(store.folder_of(part)) for part in old.parts), "any part may be shared by the new run"
    assert folders(store) & set(deleted) == set()


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


# Random stores


class Step(NamedTuple):
    stage: str
    content: int
    inputs: list[int]
    parts: list[int]


class Look(NamedTuple):
    status: str
    stages: list[int]


steps = st.builds(
    Step,
    st.sampled_from(STAGES),
    st.integers(0, 5),
    st.lists(st.integers(0, 9), max_size=3),
    st.lists(st.integers(0, 5)),
)
looks = st.builds(Look, st.sampled_from(["finished", "running"]), st.lists(st.integers(0, 9), max_size=4))


def reachable(store: Store, roots: set[str]) -> set[str]:
    """Return what folders lead to, every artifact with an input's digest among it."""
    catalog, found, todo = read_catalog(store), set(), list(roots)
    while todo:
        folder = todo.pop()
        if folder in found:
            continue
        found.add(folder)
        manifest = catalog.entries[folder].manifest
        todo += manifest.parts
        todo += [
            source.folder for digest in manifest.provenance.inputs.values() for source in catalog.with_digest(digest)
        ]
    return found


@settings(max_examples=30)
@given(
    made=st.lists(steps, min_size=1, max_size=10),
    looked=st.lists(looks, min_size=1, max_size=5),
    keep_last=st.integers(1, 3),
    unique=st.booleans(),
)
def test_a_pruned_store_has_what_kept_runs_reach_and_no_more(made, looked, keep_last, unique):
    store = Store(f"memory://{uuid.uuid4().hex}")
    parts, outputs = [part(store, f"part-{i}") for i in range(6)], []
    for number, step in enumerate(made):
        inputs = {f"input_{i}": outputs[i % number].digest for i in step.inputs if number}
        content = f"{number}" if unique else f"{step.content}"
        own = [parts[i] for i in step.parts]
        outputs.append(output(store, step.stage, f"{number}", inputs, own, content=content))
    runs = [record(store, [outputs[i % len(outputs)] for i in look.stages], look.status) for look in looked]
    before, kept = folders(store), kept_runs(runs, keep_last)
    roots = {folder for run in kept for folder in run.stages}
    most = reachable(store, roots)

    prune(store, keep_last)
    after = folders(store)
    assert roots <= after <= most <= before
    if unique:
        assert after == most
    assert all(store.find(folder) for folder in after)
    catalog = read_catalog(store)
    for folder in after:
        if manifest := catalog.entries[folder].manifest:
            assert after.issuperset(manifest.parts)
            assert all(catalog.with_digest(digest) for digest in manifest.provenance.inputs.values())
    assert read_runs(store) == kept
    assert not prune(store, keep_last).entries
    assert folders(store) == after
