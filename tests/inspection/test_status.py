"""python -m flows.status: runs that are half done, done, killed or damaged, with a server and without."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from chains import Chain, chain, checkpoint, hex_of, output, part, record
from prefect.settings import PREFECT_API_URL, temporary_settings
from runs import ROOT

from flows.status import main
from tasks.inspection import reported
from tasks.pipeline.progress import Progress
from tasks.pipeline.site import Site
from tasks.pipeline.stage import stage
from tasks.store.artifacts import Artifact, sha256_of
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.runs import RunRecord, read_runs

EXPECTED = ("load_prompts", "train_sft", "sample_completions", "score_completions", "build_pairs", "train_dpo")
NOWHERE = f"train_dpo/{'9' * 64}"
NO_SERVER = "no Prefect server: progress is as the store has it"


def told(capsys, *arguments: str) -> str:
    main(list(arguments))
    return capsys.readouterr().out


def facts(capsys, *arguments: str) -> dict:
    return json.loads(told(capsys, *arguments, "--json"))


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def states(found: dict) -> dict[str, str]:
    return {each["stage"]: each["state"] for each in found["stages"]}


@pytest.fixture
def made(store) -> Chain:
    return chain(store, "a")


def begin(store: Store, *looked_at: Artifact) -> RunRecord:
    """Begin a run of this process that looks at some outputs."""
    going = RunRecord.begin(store, expected=EXPECTED)
    for artifact in looked_at:
        going.note(store.folder_of(artifact))
    return going


# From the store


@pytest.fixture
def no_server():
    """Look as from a machine without a server, whatever other tests have started."""
    with temporary_settings({PREFECT_API_URL: None}):
        yield


def test_half_a_run(store, capsys, no_server):
    before = output(store, "load_prompts", "a")
    going = RunRecord.begin(store, expected=EXPECTED)
    later = datetime.now(UTC) + timedelta(seconds=5)  # as if the prompts had been there for a while
    going.note(store.folder_of(before))
    going._write(noted=(later,), started=later)
    going.note(f"train_sft/{hex_of('train_sft b')}")
    output(store, "train_sft", "b")
    going.note(f"sample_completions/{'9' * 64}")
    part(store, "one")
    part(store, "two")

    found = facts(capsys, store.uri)
    assert (found["run"], found["state"], found["remark"]) == (going.run.id, "running", NO_SERVER)
    assert states(found) == {
        "load_prompts": "reused",
        "train_sft": "done",
        "sample_completions": "running",
        "score_completions": "waiting",
        "build_pairs": "waiting",
        "train_dpo": "waiting",
    }
    prompts, policy, sampling, *_ = found["stages"]
    assert (prompts["seconds"], policy["rows"], sampling["rows"]) == (None, 7, None)
    assert 0 <= policy["seconds"] < 60
    assert sampling["progress"] == "stored so far: 6 completions"

    page = told(capsys, store.uri).splitlines()
    assert page[0] == f"run {going.run.id}: running"
    assert [line.split()[:2] for line in page if line.startswith(("train_sft", "train_dpo"))] == [
        ["train_sft", "done"],
        ["train_dpo", "waiting"],
    ]
    assert page[-1] == NO_SERVER


def test_rows_of_tables_count_from_the_stage_s_beginning_on(tmp_path, capsys):
    store = Store(str(tmp_path))
    part(store, "before")
    going = RunRecord.begin(store)
    going._write(stages=(f"sample_completions/{'9' * 64}",), noted=(datetime.now(UTC) + timedelta(seconds=5),))
    assert facts(capsys, store.uri)["stages"][0]["progress"] == ""


def test_a_training_is_as_far_as_its_last_whole_checkpoint(store, made, damage, capsys):
    begin(store, made.prompts).note(NOWHERE)
    unborn = Artifact(kind="model", uri=f"{store.uri}/{NOWHERE}", digest="0")
    checkpoint(store, unborn, 20)
    checkpoint(store, unborn, 100)
    damage(f"{checkpoint(store, unborn, 120).uri}/manifest.json", "truncate")
    assert facts(capsys, store.uri)["stages"][1]["progress"] == "stored so far: checkpoint of step 100"


def test_a_finished_run_waits_for_nothing(store, made, capsys):
    going = begin(store, made.prompts, made.policy)
    going.finish({"policy": made.policy})
    found = facts(capsys, store.uri)
    assert (found["state"], found["remark"]) == ("finished", "")
    assert states(found).keys() == {"load_prompts", "train_sft"}
    assert set(states(found).values()) <= {"done", "reused"}  # as many seconds as lie between the two


def test_what_is_gone_or_damaged_is_said_to_be(store, made, damage, capsys):
    begin(store, made.prompts, made.policy, made.completions).finish({})
    damage(f"{made.prompts.uri}/manifest.json", "delete")
    damage(f"{made.policy.uri}/manifest.json", "truncate")
    assert list(states(facts(capsys, store.uri)).values())[:2] == ["missing", "damaged"]


def test_a_record_of_an_earlier_release_is_told_as_far_as_it_goes(store, made, capsys):
    old = record(store, [made.prompts, made.policy], began=1)
    found = facts(capsys, store.uri)
    assert (found["run"], found["state"]) == (old.id, "finished")
    assert [(each["state"], each["began"], each["seconds"]) for each in found["stages"]] == [("done", None, None)] * 2


def test_a_killed_run_has_ended(tmp_path, capsys):
    script = "import sys, time; from tasks.store.runs import RunRecord; from tasks.store.folders import Store\n"
    script += f"run = RunRecord.begin(Store({str(tmp_path)!r}), expected={EXPECTED}); run.note({NOWHERE!r})\n"
    script += "run.note('load_prompts/' + 'a' * 64); print('begun', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        assert facts(capsys, str(tmp_path))["state"] == "running"
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        page = told(capsys, str(tmp_path))
        child.wait()
    assert page.splitlines()[0].endswith(": interrupted: its process is gone")
    assert page.count("interrupted") == 2
    assert "not begun" not in page, "train_dpo is the last one expected"
    assert "waiting" not in page
    assert page.count("missing") == 1


def test_a_run_that_a_monitor_has_stopped_says_so(tmp_path, capsys):
    script = "from tasks.store.runs import RunRecord; from tasks.store.folders import Store\n"
    script += f"run = RunRecord.begin(Store({str(tmp_path)!r}), expected={EXPECTED})\n"
    script += "run.judge([{'name': 'length', 'level': 'fail'}, {'name': 'kl_token', 'level': 'warn'}])"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
    assert told(capsys, str(tmp_path)).splitlines()[0].endswith(": interrupted: stopped by monitors.length")


def test_a_store_that_others_write_sends_no_escapes_to_the_terminal(tmp_path, capsys):
    going = RunRecord.begin(Store(str(tmp_path)), expected=("train_dpo\x1b]0;title\x07",), flow_run_id="\x1b[2J")
    going.judge([{"name": "\x1b[31m", "level": "fail"}])
    page = told(capsys, str(tmp_path))
    assert "\x1b" not in page
    assert "train_dpo\\x1b]0;title\\x07" in page


def test_a_narrow_terminal_breaks_no_words(store, made, capsys, monkeypatch):
    begin(store, made.prompts)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    page = told(capsys, store.uri)
    assert all(name in page for name in EXPECTED)


# Which run


def test_the_newest_run_is_shown_or_the_one_that_is_asked_for(store, capsys):
    first, second = begin(store), begin(store)
    assert facts(capsys, store.uri)["run"] == second.run.id
    assert facts(capsys, store.uri, "--run", first.run.id[:-1])["run"] == first.run.id
    assert f"2 runs begin with {first.run.id[:8]!r}; give more of: " in refused(
        capsys, store.uri, "--run", first.run.id[:8]
    )
    assert "no run begins with 'x': list the store" in refused(capsys, store.uri, "--run", "x")


def test_no_runs_and_no_store_are_told_apart(store, tmp_path, capsys):
    output(store, "load_prompts", "a")
    assert refused(capsys, store.uri) == "error: the store has no runs\n"
    assert "there is no store at file:///" in refused(capsys, str(tmp_path / "nowhere"))
    assert "must be a folder, file:///... or s3://" in refused(capsys, "http://host/store")


def test_a_damaged_record_is_not_passed_over(store, damage, capsys):
    whole, broken = begin(store), begin(store)
    damage(f"{store.uri}/runs/{broken.run.id}/manifest.json", "truncate")
    for asked in ([], ["--run", broken.run.id[:-2]]):
        assert f"runs/{broken.run.id} is damaged: choose another run with --run" in refused(capsys, store.uri, *asked)
    assert facts(capsys, store.uri, "--run", whole.run.id)["run"] == whole.run.id


# From Prefect's server

SOURCE = Artifact(kind="number", uri="file:///anywhere", digest="5" * 64, rows=5)


def run_flow(store: Store, capsys, error: Exception | None = None, worker: bool = False) -> tuple[RunRecord, dict]:
    """Run a flow of one stage that asks how far it is; the stage may fail, or run as on a worker."""
    from prefect import flow, runtime, tags

    asked: dict = {}
    clock = [0.0]

    @stage(version=1)
    def train_dpo(out: Draft, source: Artifact) -> Artifact:
        progress = Progress("training steps", 320, clock=lambda: clock[0])
        clock[0] = 30.0
        progress.move_to(96, "loss 0.5")
        asked.update(facts(capsys, store.uri))
        if error:
            raise error
        return out.commit("number", {}, sha256_of(b"5"), rows=5)

    def compute() -> None:
        train_dpo(Site(store), SOURCE)

    @flow(name="whole")
    def whole() -> RunRecord:
        record = RunRecord.begin(store, expected=EXPECTED, flow_run_id=str(runtime.flow_run.id))
        record.note(train_dpo.draft(Site(store), SOURCE).folder)
        if worker:
            with tags(f"parent:{runtime.flow_run.id}"):
                flow(compute, name="of a worker")()
        else:
            compute()
        return record

    state = whole(return_state=True)
    (seen,) = read_runs(store)
    return (state.result() if state.is_completed() else RunRecord(store, seen)), asked


@pytest.mark.usefixtures("prefect_harness")
@pytest.mark.parametrize("worker", [False, True])
def test_progress_is_what_the_server_has(tmp_path, capsys, worker):
    record, asked = run_flow(Store(str(tmp_path)), capsys, worker=worker)
    assert (asked["state"], asked["remark"]) == ("running", "")
    (stage,) = asked["stages"]
    assert stage["state"] == "running"
    assert stage["progress"] == "training steps: 96 / 320 (30%), 3.2/s, 70 s left, loss 0.5"
    assert asked["flow_run_id"] == record.run.flow_run_id


@pytest.mark.usefixtures("prefect_harness")
def test_a_run_that_failed_has_though_its_process_goes_on(tmp_path, capsys):
    record, asked = run_flow(Store(str(tmp_path)), capsys, ValueError("no such thing"))
    assert asked["state"] == "running"
    assert record.run.in_use()
    found = facts(capsys, str(tmp_path))
    assert (found["state"], states(found)) == ("failed", {"train_dpo": "failed"})


@pytest.mark.usefixtures("prefect_harness")
def test_a_run_that_another_server_has_is_not_known(tmp_path, capsys):
    RunRecord.begin(Store(str(tmp_path)), flow_run_id="00000000-0000-0000-0000-000000000000")
    assert "does not know the run, which used another one" in facts(capsys, str(tmp_path))["remark"]
    RunRecord.begin(Store(str(tmp_path)))
    assert "the run was no flow run of Prefect's" in facts(capsys, str(tmp_path))["remark"]


def test_a_server_that_does_not_answer_is_named(tmp_path, capsys):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    RunRecord.begin(Store(str(tmp_path)), flow_run_id="00000000-0000-0000-0000-000000000000")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        remark = facts(capsys, str(tmp_path))["remark"]
    assert remark == (
        f"Prefect's server at http://127.0.0.1:9/api does not answer (ConnectError): {reported.AS_STORED}"
    )
