"""What pruning reads again while it deletes: the records that may have changed, and no others."""

import os

import pytest
from chains import Origin, chain, everything, folders, output, record

from tasks.inspection import prune as module
from tasks.inspection.prune import prune
from tasks.store import runs as runs_module
from tasks.store.artifacts import DamagedArtifactError
from tasks.store.folders import Store
from tasks.store.manifests import read_manifest
from tasks.store.runs import RunReader, RunRecord, process_of, read_runs


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Return the records that are read, in order; batches are of one folder."""
    found = []

    def counted(uri: str):
        found.append(uri.rpartition("/")[2])
        return read_manifest(uri)

    monkeypatch.setattr(runs_module, "read_manifest", counted)
    monkeypatch.setattr(module, "BATCH", 1)
    return found


def test_records_of_runs_that_are_over_are_read_once_however_many_batches_there_are(store, reads):
    old = [output(store, "train_sft", f"{number}") for number in range(6)]
    over = [record(store, [made]) for made in old] + [record(store, [], status="running"), record(store, [])]
    alive = record(store, [], status="running", process=process_of(os.getpid()))
    assert len(prune(store, 1).entries) == 6
    assert all(reads.count(run.id) == 1 for run in over)
    assert reads.count(alive.id) == 7, "before each of six batches, and at first"


def test_a_record_that_changes_is_read_again_whatever_it_said(store, reads):
    """A run adds to its record after it has finished: its report's page, say."""
    old, other = chain(store, "old"), chain(store, "other")
    over = RunRecord.begin(store)
    over.finish({})
    reader = RunReader(store)
    assert [run.artifacts for run in reader.read()] == [{}]
    assert reader.read() == read_runs(store)
    over.add("aligned", old.aligned)
    assert [run.artifacts for run in reader.read()] == [{"aligned": store.folder_of(old.aligned)}]
    begun = RunRecord.begin(store)
    begun.note(store.folder_of(other.aligned))
    assert [run.id for run in reader.read()] == [over.run.id, begun.run.id]
    before = len(reads)
    begun.finish({})
    store.delete(f"runs/{over.run.id}")
    assert [run.status for run in reader.read()] == ["finished"]
    reader.read()
    assert reads[before:] == [begun.run.id]


def test_a_finished_run_that_is_given_another_artifact_meanwhile_keeps_it(store, monkeypatch):
    """The store's first deletion is the moment at which a run that is kept adds an artifact of another run."""
    made = [output(store, "train_sft", f"{number}", Origin()) for number in range(4)]
    for each in made:
        record(store, [each])
    kept = RunRecord(store, record(store, []))
    monkeypatch.setattr(module, "BATCH", 1)
    deleted, delete = [], Store.delete

    def delete_and_add(self: Store, folder: str) -> None:
        delete(self, folder)
        if not deleted:
            left = next(each for each in reversed(made) if store.folder_of(each) != folder)
            kept.add("shown", left)
            deleted.append(left)

    monkeypatch.setattr(Store, "delete", delete_and_add)
    prune(store, 1)
    assert store.find(store.folder_of(deleted[0])) == deleted[0]
    assert len(folders(store)) == 1


def test_a_record_that_is_damaged_meanwhile_stops_it(store, damage, monkeypatch):
    old, other = chain(store, "old"), chain(store, "other")
    record(store, [old.aligned])
    last = record(store, [other.aligned])
    monkeypatch.setattr(module, "BATCH", 1)
    deleted, delete = [], Store.delete

    def delete_and_damage(self: Store, folder: str) -> None:
        delete(self, folder)
        deleted.append(folder)
        if len(deleted) == 1:
            damage(f"{store.uri}/runs/{last.id}/manifest.json", "flip")

    monkeypatch.setattr(Store, "delete", delete_and_damage)
    with pytest.raises(DamagedArtifactError, match="delete it if the run is over"):
        prune(store, 1)
    assert len(deleted) == 1
    assert all(store.find(folder) for folder in everything(store, other))
