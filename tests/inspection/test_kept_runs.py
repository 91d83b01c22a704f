"""Which runs pruning keeps: the last that finished, those that were interrupted since, those under way."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

from chains import chain, everything, folder_set, folders, output, part, record

from tasks.inspection import prune as module
from tasks.inspection.prune import kept_runs, prune
from tasks.store.folders import Store
from tasks.store.runs import RunRecord, process_of, read_runs


def test_the_last_finished_runs_are_kept_and_those_that_were_interrupted_since(tmp_path):
    store = Store(str(tmp_path))
    statuses = ["finished", "running", "finished", "running", "finished", "running"]
    runs = [record(store, [], status=status) for status in statuses]
    assert kept_runs(runs, 1) == [runs[4], runs[5]]
    assert kept_runs(runs, 2) == [runs[2], runs[3], runs[4], runs[5]]
    assert kept_runs(runs, 9) == runs
    assert kept_runs(runs[1:2], 1) == runs[1:2], "without a finished run nothing is older than it"


def test_a_pilot_takes_no_whole_runs_place(tmp_path):
    store, pilot = Store(str(tmp_path)), {"config": {"data": {"pilot": 5}}}
    runs = [record(store, [], **facts) for facts in (pilot, {}, {}, pilot)]
    assert kept_runs(runs, 1) == runs[2:]
    assert kept_runs(runs, 2) == runs[1:]
    assert kept_runs([runs[0], runs[3]], 1) == [runs[3]], "where there are pilots alone, they count"


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
