"""What is said of long work: rates and times by hand, and lines that come neither too often nor twice."""

import json
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import ROOT

from tasks.pipeline import progress as module
from tasks.pipeline.dry_run import PLAN, Plan
from tasks.pipeline.jobs import Job, run_job
from tasks.pipeline.pace import Mean, duration_text, pace_texts, position_text, rate_text
from tasks.pipeline.progress import LINE_SECONDS, TELL, Position, Progress, track


class Clock:
    """Seconds that pass when they are told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


# Words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (70, "70 s"), (119, "119 s"), (120, "2 min"), (754, "12 min"), (7199, "119 min"), (7200, "2 h")],
)
def test_a_duration_is_in_the_largest_unit_that_it_holds_twice(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(5120.4, "5,120/s"), (9.96, "10/s"), (3.2, "3.2/s"), (1, "1.0/s"), (0.2, "12/min"), (1 / 800, "4.5/h")],
)
def test_a_rate_is_in_the_smallest_unit_that_holds_one(rate, text):
    assert rate_text(rate) == text


def test_rate_and_time_left_by_hand():
    assert pace_texts(96, 224, 30) == ["3.2/s", "70 s left"]  # 96 in 30 s; 224 / 3.2 = 70
    assert pace_texts(96, None, 30) == ["3.2/s"]
    assert pace_texts(0, 224, 30) == [], "no rate can be told of nothing"
    assert position_text(96, 320) == "96 / 320 (30%)"
    assert position_text(319, 320) == "319 / 320 (99%)", "not yet all"
    assert position_text(12_000, None) == "12,000"


def test_a_mean_leaves_out_what_could_not_be_read():
    mean = Mean("reward")
    assert mean.text() == ""
    mean.add(np.array([1.0, np.nan, 2.0], np.float32))
    mean.add(np.array([6.0]))
    assert (mean.number, mean.text()) == (4, "mean reward 3.000")


# Lines of the log


def test_a_line_says_how_far_how_fast_and_what_matters(clock, capsys):
    progress = Progress("sampling prompts", 320, clock=clock)
    clock.wait(29)
    progress.move_to(90)
    assert capsys.readouterr().out == "", "the first line comes after 30 s"
    clock.wait(1)
    progress.move_to(96, "mean reward 0.5", tokens=153_600)  # 153,600 / 30
    assert (
        capsys.readouterr().out
        == "sampling prompts: 96 / 320 (30%), 3.2/s, 70 s left, mean reward 0.5, 5,120 tokens/s\n"
    )
    clock.wait(29)
    progress.move_to(300)
    assert capsys.readouterr().out == ""
    clock.wait(41)
    progress.move_to(320)
    progress.close()
    last, closing = capsys.readouterr().out.splitlines()
    assert last == "sampling prompts: 320 / 320 (100%), 3.2/s, 0 s left, mean reward 0.5, 5,120 tokens/s"
    assert closing == "sampling prompts: 320 / 320 (100%) in 100 s, 3.2/s, mean reward 0.5, 5,120 tokens/s"


def test_what_was_done_before_is_in_no_rate(clock, capsys):
    progress = Progress("training steps", 300, start=200, clock=clock)
    clock.wait(40)
    progress.move_to(220, "loss 0.5")  # 20 steps in 40 s: 30/min; 80 are left
    assert capsys.readouterr().out == "training steps: 220 / 300 (73%), 30/min, 2 min left, loss 0.5\n"


def test_short_work_says_nothing(clock, capsys):
    progress = Progress("scoring completions", 10, clock=clock)
    clock.wait(20)
    progress.move_to(10)
    clock.wait(20)
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_work_that_was_stopped_is_not_said_to_be_done(clock, capsys):
    progress = Progress("training steps", 100, clock=clock)
    clock.wait(30)
    progress.move_to(40)
    progress.close()
    assert capsys.readouterr().out.splitlines()[-1] == "training steps: 40 / 100 (40%) in 30 s, 1.3/s"


def test_a_total_that_nobody_knows_gives_no_time_left(clock, capsys):
    progress = Progress("reading prompts.jsonl", None, clock=clock)
    for number in (15_000, 30_000):
        clock.wait(15)
        progress.move_to(number)
    progress.close()
    assert capsys.readouterr().out.splitlines() == [
        "reading prompts.jsonl: 30,000, 1,000/s",
        "reading prompts.jsonl: 30,000 in 30 s, 1,000/s",
    ]


def test_tracked_items_are_the_items(capsys):
    assert list(track("reading", iter("abc"), 3)) == ["a", "b", "c"]
    assert list(track("reading", [])) == []
    assert capsys.readouterr() == ("", "")


@given(steps=st.lists(st.floats(0, 100), max_size=60))
def test_lines_are_never_nearer_than_they_may_be(steps):
    clock, times = Clock(), []
    progress = Progress("work", len(steps), clock=clock)
    progress._log = lambda line: times.append(clock.now)
    for number, seconds in enumerate(steps, 1):
        clock.wait(seconds)
        progress.move_to(number)
    gaps = np.diff([1000.0, *times])
    assert (gaps >= LINE_SECONDS - 1e-6).all()
    total = sum(steps)
    assert len(times) <= total / LINE_SECONDS + 1e-6
    if times:  # nor is it silent for long where something moves
        assert gaps.max() <= LINE_SECONDS + max(steps) + 1e-6
    else:
        assert total < LINE_SECONDS + max(steps, default=0) + 1e-6


def test_a_dry_run_leaves_stdout_to_its_plan(clock, capsys, tmp_path):
    token = PLAN.set(Plan(tmp_path))
    try:
        progress = Progress("reading", None, clock=clock)
        clock.wait(30)
        progress.move_to(3_000)
    finally:
        PLAN.reset(token)
    assert capsys.readouterr() == ("", "reading: 3,000, 100/s\n")


# Where they go


@pytest.mark.usefixtures("prefect_harness")
def test_a_task_s_lines_are_in_the_log_of_its_run(monkeypatch, caplog):
    from prefect import flow, task

    monkeypatch.setattr(module, "LINE_SECONDS", 0.0)

    @task
    def work() -> None:
        progress = Progress("counting", 2)
        progress.move_to(1)
        progress.move_to(2)
        progress.close()

    flow(lambda: work(), name="counts")()
    told = [record for record in caplog.records if record.getMessage().startswith("counting: ")]
    assert [record.name for record in told] == ["prefect.task_runs"] * 3


@pytest.mark.usefixtures("prefect_harness")
def test_the_ui_has_an_artifact_that_says_the_same(monkeypatch, clock):
    from prefect import flow, get_client, task
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterType

    @task
    def work() -> None:
        short = Progress("short", 2, clock=clock)
        short.move_to(2)
        short.close()
        progress = Progress("sampling prompts", 320, clock=clock)
        for done in (96, 192, 288):
            clock.wait(10)
            progress.move_to(done)
        progress.close()

    flow(lambda: work(), name="counts")()
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(type=ArtifactFilterType(any_=["progress"])))
    ours = [item for item in found if item.description and item.description.startswith(("short", "sampling prompts"))]
    assert [(item.data, item.description) for item in ours] == [
        (90.0, "sampling prompts: 288 / 320 (90%) in 30 s, 9.6/s")
    ]


JOB = """
import os, time
from tasks.pipeline.progress import Progress

def fit(job):
    progress = Progress("training steps", 6, start=1)
    print("rank", os.environ.get("RANK"), flush=True)
    for step in range(2, 7):
        time.sleep(0.1)
        progress.move_to(step, "loss 0.5")
    progress.close()
"""


@pytest.mark.parametrize("devices", [1, 2])
def test_a_child_s_progress_is_its_parent_s_once(tmp_path, monkeypatch, capfd, devices):
    (tmp_path / "counts.py").write_text(JOB)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # then a child trains
    monkeypatch.setattr(module, "LINE_SECONDS", 0.0)  # here; the child says nothing by itself
    run_job(Job(fit="counts:fit", folder=tmp_path, model=tmp_path, store="s", config={"devices": devices}))
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("training steps")]
    assert re.fullmatch(r"training steps: 6 / 6 \(100%\) in \d+ s(, [\d.,]+/s)?, loss 0.5", lines[-1])
    assert sum(" in " in line for line in lines) == 1
    assert json.loads((tmp_path / "progress.json").read_text()) == {
        "what": "training steps",
        "total": 6,
        "start": 1,
        "done": 6,
        "note": "loss 0.5",
    }


def test_a_child_tells_no_more_than_once_a_second(clock, capsys):
    told: list[Position] = []
    token = TELL.set(told.append)
    try:
        progress = Progress("training steps", 1000, clock=clock)
        for step in range(1, 1001):
            clock.wait(0.01)
            progress.move_to(step)
        progress.close()
    finally:
        TELL.reset(token)
    assert 9 <= len(told) <= 11
    assert told[-1].done == 1000
    assert capsys.readouterr() == ("", "")


def test_lines_are_flushed_as_they_come():
    code = textwrap.dedent("""
        import time
        from tasks.pipeline import progress
        progress.LINE_SECONDS = 0.0
        counted = progress.Progress("counting", 2)
        time.sleep(0.01)
        counted.move_to(1)
        time.sleep(600)
    """)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("counting: 1 / 2 (50%), ")
        child.kill()
