"""Records of runs: what they say, and whether the run goes on."""

import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from runs import ROOT

from tasks.store.artifacts import NOTHING, Artifact, DamagedArtifactError
from tasks.store.folders import Store
from tasks.store.runs import SILENCE, Run, RunRecord, process_of, read_runs

STAGES = [f"load_prompts/{'a' * 64}", f"train_sft/{'b' * 64}"]


def run(**changes) -> Run:
    now, me = datetime.now(UTC), os.getpid()
    facts = {"host": socket.gethostname(), "pid": me, "process": process_of(me), "started": now, "updated": now}
    return Run(id="1", **{**facts, **changes})


def test_a_file_of_a_stranger_is_no_run(tmp_path):
    store = Store(str(tmp_path))
    record = RunRecord.begin(store)
    (tmp_path / "runs" / "notes.txt").write_text("the run of Tuesday is the good one")
    assert [r.id for r in read_runs(store)] == [record.run.id]


def test_a_record_grows_with_its_run(store):
    assert read_runs(store) == []
    record = RunRecord.begin(store)
    assert [r.status for r in read_runs(store)] == ["running"]
    for folder in STAGES:
        record.note(folder)
    (seen,) = read_runs(store)
    assert (list(seen.stages), seen.artifacts, seen.pid) == (STAGES, {}, os.getpid())
    assert seen.in_use()
    inside = Artifact(kind="prompts", uri=f"{store.uri}/{STAGES[0]}", digest="1")
    outside = Artifact(kind="model", uri=f"{store.uri}-2/train_sft/x", digest="2")
    record.finish({"prompts": inside, "policy": outside, "preferences": NOTHING})
    (seen,) = read_runs(store)
    assert (seen.status, seen.artifacts) == ("finished", {"prompts": STAGES[0]})
    assert not seen.in_use()
    assert seen == record.run


def test_a_folder_that_was_noted_writes_nothing(tmp_path):
    record = RunRecord.begin(Store(str(tmp_path)))
    record.note(STAGES[0])
    before = record.run
    record.note(STAGES[0])
    assert record.run is before


def test_runs_come_in_the_order_in_which_they_began(store):
    begun = [RunRecord.begin(store).run.id for _ in range(5)]
    assert [r.id for r in read_runs(store)] == begun


def test_a_run_that_was_killed_is_not_in_use(tmp_path):
    script = "from tasks.store.runs import RunRecord; from tasks.store.folders import Store; import sys, time\n"
    script += f"RunRecord.begin(Store({str(tmp_path)!r})); print('begun', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "begun\n"
        (seen,) = read_runs(Store(str(tmp_path)))
        assert seen.pid == child.pid
        assert seen.in_use()
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not seen.in_use(), "a zombie runs no more"
        child.wait()
    assert seen.status == "running"
    assert not seen.in_use()


def test_a_pid_that_was_given_again_is_another_process():
    namespace, start = process_of(os.getpid()).split()
    assert run().in_use()
    assert not run(process=f"{namespace} {int(start) - 1}").in_use()


def test_a_process_that_another_user_may_not_see_is_not_taken_for_dead(tmp_path):
    script = "import os, sys\nfrom datetime import UTC, datetime\nfrom tasks.store.runs import Run, process_of\n"
    script += "os.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\nassert not os.path.exists('/proc/1')\n"
    script += "now = datetime.now(UTC)\n"
    script += "here = process_of(os.getpid()).split()[0]\n"
    script += "facts = dict(id='1', host='h', started=now, updated=now)\n"
    script += "runs = [Run(pid=pid, process=here + ' 5', **facts) for pid in (1, 2**22 - 1)]\n"
    script += "print([run.in_use() for run in runs])"
    mounted = 'mount -t proc -o hidepid=2 proc /proc && exec "$0" -c "$1"'
    program = ["unshare", "--mount", "sh", "-c", mounted, sys.executable, script]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("needs to mount /proc")
    assert done.stdout == "[True, False]\n", done.stderr


@pytest.mark.parametrize("elsewhere", ["other-boot/pid:[1] 5", "/pid:[1] 5", ""])
def test_a_run_elsewhere_is_in_use_for_a_week(elsewhere):
    almost, over = (datetime.now(UTC) - SILENCE + timedelta(minutes=m) for m in (1, -1))
    assert run(process=elsewhere, updated=almost).in_use()
    assert not run(process=elsewhere, updated=over).in_use()
    assert not run(process=elsewhere, updated=almost, status="finished").in_use()


def test_a_record_that_cannot_be_read_is_told(store, damage):
    record = RunRecord.begin(store)
    damage(f"{store.uri}/runs/{record.run.id}/manifest.json", "truncate")
    with pytest.raises(DamagedArtifactError, match=r"runs/.*delete it if the run is over"):
        read_runs(store)
    damage(f"{store.uri}/runs/{record.run.id}/manifest.json", "delete")
    assert read_runs(store) == []
