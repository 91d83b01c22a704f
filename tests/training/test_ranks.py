"""Trainings in processes of their own: several at once, several ranks, parents that die."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from processes import is_alive, wait_until_gone
from runs import ROOT, SUPPORT
from trainings import losses, steps_in, train

from tasks.config.errors import ConfigurationError
from tasks.pipeline.jobs import Job, die_with_parent, run_job
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.parquet import read_table

pytestmark = pytest.mark.usefixtures("one_thread")


def test_what_a_child_finds_wrong_is_what_its_parent_says(tmp_path, monkeypatch):
    source = "from tasks.config.errors import ConfigurationError\n\ndef fit(job):\n    raise ERROR\n"
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # then a child trains
    for number, (raised, error) in enumerate(
        [("ConfigurationError('dpo.beta = 0')", ConfigurationError), ("ValueError('of a library')", RuntimeError)]
    ):
        (tmp_path / f"refuses_{number}.py").write_text(source.replace("ERROR", raised))
        folder = tmp_path / str(number)
        folder.mkdir()
        job = Job(fit=f"refuses_{number}:fit", folder=folder, model=folder, store="s", config={"devices": 1})
        with pytest.raises(error, match="^dpo.beta = 0$" if number == 0 else "exit code 1; its output is above"):
            run_job(job)


def test_a_child_dies_with_its_parent():
    code = (
        "import os, subprocess, time; from functools import partial; from tasks.pipeline.jobs import die_with_parent\n"
    )
    code += "child = subprocess.Popen(['sleep', '600'], preexec_fn=partial(die_with_parent, os.getpid()))\n"
    code += "print(child.pid, flush=True); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert is_alive(child)
    parent.kill()
    parent.communicate()
    wait_until_gone([child])


def test_a_child_whose_parent_was_gone_before_it_asked_dies_too():
    another = functools.partial(die_with_parent, os.getppid())
    assert subprocess.Popen(["sleep", "600"], preexec_fn=another).wait(60) == -signal.SIGKILL


MANY = {"max_steps": 200, "save_steps": 10, "logging_steps": 1}


def worker(stage: str, store: Store, start: Artifact, **changes: object) -> "subprocess.Popen[str]":
    """Start a process that trains once `begin` is called."""
    code = "import sys; from trainings import work; work(*sys.argv[1:])"
    arguments = [stage, store.uri, start.model_dump_json(), json.dumps(changes)]
    paths = os.pathsep.join(map(str, (ROOT, SUPPORT)))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], **pipes, text=True, cwd=ROOT, env=environment)


def begin(*processes: "subprocess.Popen[str]") -> None:
    """Have processes train at the same time."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def result(process: "subprocess.Popen[str]") -> Artifact:
    printed, _ = process.communicate(timeout=500)
    assert process.returncode == 0
    return Artifact.model_validate_json(printed.splitlines()[-1])


def processes_below(process: "subprocess.Popen[str]", store: Store) -> list[psutil.Process]:
    """Return torchrun and its ranks, once a checkpoint is in the store."""
    for _ in range(6000):
        if any(Path(store.root).glob("checkpoints/*/*/step-*/manifest.json")):
            (torchrun,) = psutil.Process(process.pid).children()
            return [torchrun, *torchrun.children()]
        assert process.poll() is None, "the training ended before it saved a checkpoint"
        time.sleep(0.05)
    raise AssertionError("the training never saved a checkpoint")


def terminate_amid_a_step(process: "subprocess.Popen[str]", ranks: list[psutil.Process]) -> None:
    """Send SIGTERM, twice, and let the ranks go on only when it has reached them."""
    for rank in ranks:
        rank.suspend()
    process.terminate()
    bit = 1 << (signal.SIGTERM - 1)
    for rank in ranks:
        status = Path(f"/proc/{rank.pid}/status")
        while not int(status.read_text().partition("ShdPnd:")[2].split()[0], 16) & bit:
            time.sleep(0.05)
    process.terminate()
    for rank in ranks:
        rank.resume()


@pytest.mark.slow
def test_two_runs_at_once_end_with_the_same_model(store, undisturbed, start):
    both = [worker("sft", store, start, save_steps=1) for _ in range(2)]
    begin(*both)
    assert [result(process).digest for process in both] == [undisturbed("sft").digest] * 2
    assert steps_in(store) == []


@pytest.mark.slow
def test_two_ranks_stop_at_one_step_and_go_on_from_it(tmp_path, start):
    store = Store(str(tmp_path / "preempted"))
    process = worker("sft", store, start, devices=2, **MANY)
    begin(process)
    torchrun, *ranks = processes_below(process, store)
    assert len(ranks) == 2
    terminate_amid_a_step(process, ranks)
    process.communicate(timeout=300)
    assert process.returncode == 143
    wait_until_gone([torchrun, *ranks])
    (saved,) = steps_in(store)
    assert int(saved.removeprefix("step-")) < MANY["max_steps"]
    assert store.find("sft/k") is None
    rest = worker("sft", store, start, devices=2, **MANY)
    whole = worker("sft", Store(str(tmp_path / "whole")), start, devices=2, **MANY)
    begin(rest, whole)
    models = [result(process) for process in (rest, whole)]
    assert losses(models[0]) == losses(models[1])
    assert models[0].digest == models[1].digest


@pytest.mark.slow
def test_the_ranks_die_with_a_killed_parent(tmp_path, start):
    store = Store(str(tmp_path))
    process = worker("sft", store, start, devices=2, **MANY)
    begin(process)
    below = processes_below(process, store)
    assert len(below) == 3
    process.kill()
    process.communicate()
    wait_until_gone(below)


@pytest.mark.slow
def test_dpo_on_two_devices_is_dpo_on_one(tmp_path, start, undisturbed):
    process = worker("dpo", Store(str(tmp_path)), start, devices=2)
    begin(process)
    steps, found = zip(*losses(result(process)), strict=True)
    expected_steps, expected = zip(*losses(undisturbed("dpo")), strict=True)
    assert steps == expected_steps
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"weight_pairs": "prompt"}, {"loss_type": "kto"}], ids=str)
def test_weights_and_reference_points_on_two_devices_are_those_on_one(tmp_path, start, changes):
    process = worker("dpo", Store(str(tmp_path / "two")), start, devices=2, **changes)
    begin(process)
    two, one = result(process), train("dpo", Store(str(tmp_path / "one")), start, **changes)
    for metric in ("loss", "rewards/margins", "rewards/accuracies", *(["kl"] if "loss_type" in changes else [])):
        found, expected = (metrics(model)[metric] for model in (two, one))
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6), metric


def metrics(model: Artifact) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in read_table(Artifact(kind="training_log", uri=model.uri, digest=model.digest)).to_pylist():
        found.setdefault(row["metric"], []).append(row["value"])
    return found
