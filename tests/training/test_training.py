"""Training that is stopped: by SIGTERM, by another run of the same training, by a checkpoint that is no checkpoint."""

import functools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.states import StateType
from processes import is_alive, wait_until_gone
from runs import ROOT, SUPPORT
from transformers import TrainerCallback

import tasks.training.trainer
from tasks.config.errors import ConfigurationError
from tasks.config.sections import ModelSource
from tasks.config.settings import RewardModelConfig, SftConfig
from tasks.config.training import DpoConfig, Lora, Training
from tasks.examples.world import write_base_model
from tasks.pipeline.jobs import Job, die_with_parent, run_job
from tasks.store.artifacts import Artifact, Provenance, files_digest
from tasks.store.copies import fetch
from tasks.store.drafts import Draft
from tasks.store.folders import Store, read_manifest
from tasks.store.parquet import read_table
from tasks.training.trained_model import commit_model, discard, trained

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, STOP = 10, 6  # of 8 steps an epoch; between two saves
SETTINGS: dict[str, Any] = {"max_steps": STEPS, "batch_size": 4, "save_steps": 4, "logging_steps": 1}
SETTINGS |= {"learning_rate": 1e-3, "scheduler": "constant", "warmup_ratio": 0.0}
STAGES: dict[str, Training] = {
    "sft": SftConfig(base_model=ModelSource(path="given"), micro_batch_size=2, **SETTINGS),
    "reward_model": RewardModelConfig(micro_batch_size=2, **SETTINGS),
    "dpo": DpoConfig(**SETTINGS, tokens_per_batch=30, lora=Lora(r=2)),  # two packs a step
}


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Artifact:
    """Return the world's untrained model."""
    store, folder = Store(str(tmp_path_factory.mktemp("start"))), tmp_path_factory.mktemp("base")
    write_base_model(folder, seed=0)
    files = {path.name: path for path in folder.iterdir()}
    draft = Draft(store, Provenance(stage="store_model", version=1, key="k"))
    return draft.commit("model", files, files_digest(files))


def examples(stage: str) -> pa.Table:
    """Return 32 examples of random tokens; for DPO 16 prompts with two pairs each, of three completions."""
    random = np.random.default_rng(0)

    def tokens(*shape: int) -> list:
        return random.integers(10, 200, (*shape, 6)).tolist()

    if stage == "sft":
        return pa.table({"input_ids": tokens(32), "completion_mask": [[0, 0, 1, 1, 1, 1]] * 32})
    if stage == "reward_model":
        return pa.table({"chosen_ids": tokens(32), "rejected_ids": tokens(32)})
    columns = {"prompt_id": [f"{i:02d}" for i in range(16)], "prompt": tokens(16), "completions": tokens(16, 3)}
    columns["ref_logps"] = random.uniform(-30, -20, (16, 3)).tolist()
    return pa.table(columns | {"chosen": [[0, 1]] * 16, "rejected": [[1, 2]] * 16})


def train(stage: str, store: Store, start: Artifact, **changes: object) -> Artifact:
    """Train as the stage does."""
    draft, config = Draft(store, Provenance(stage=stage, version=1, key="k")), STAGES[stage].model_copy(update=changes)
    with trained(draft, f"tasks.{stage}:fit", start, config, [examples(stage)]) as folder:
        return commit_model(draft, start, folder, {"examples": 32})


def losses(model: Artifact) -> list[tuple[int, float]]:
    log = read_table(Artifact(kind="training_log", uri=model.uri, digest=model.digest)).to_pylist()
    return [(row["step"], row["value"]) for row in log if row["metric"] == "loss"]


def steps_in(store: Store) -> list[str]:
    """Return the complete checkpoints of a store."""
    folders = [f"checkpoints/{stage}/k" for stage in STAGES]
    return [name for folder in folders for name in store.list(folder) if store.find(f"{folder}/{name}")]


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """Return a function that trains a stage to its end, once."""
    return functools.cache(lambda stage: train(stage, Store(str(tmp_path_factory.mktemp(stage))), start))


class Preempt(TrainerCallback):
    """Sends SIGTERM to its own process amid an optimizer step, and again before the checkpoint is committed."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_substep_end(self, args, state, control, **_) -> None:
        if state.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_save(self, args, state, control, **_) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class PreemptedError(BaseException):
    """What SIGTERM raises here, as Prefect's handler does within a flow run."""


@pytest.fixture
def preempted(monkeypatch, start):
    """Return a function that trains until SIGTERM arrives in a step."""

    def preempt(stage: str, store: Store, step: int, run: Callable[..., object] = train) -> None:
        def raise_(*_: object) -> None:
            raise PreemptedError

        ours, theirs = tasks.training.trainer.callbacks, signal.signal(signal.SIGTERM, raise_)
        with monkeypatch.context() as patch:
            patch.setattr(tasks.training.trainer, "callbacks", lambda job: [Preempt(step), *ours(job)])
            try:
                with pytest.raises(PreemptedError):
                    run(stage, store, start)
                assert signal.getsignal(signal.SIGTERM) is raise_
            finally:
                signal.signal(signal.SIGTERM, theirs)

    return preempt


# SIGTERM


@pytest.mark.parametrize(("stage", "uri"), [("sft", "file"), ("reward_model", "file"), ("dpo", "s3")])
def test_sigterm_saves_and_another_worker_goes_on(
    stage, uri, request, tmp_path, monkeypatch, preempted, undisturbed, start
):
    store = Store(request.getfixturevalue("s3_uri") if uri == "s3" else str(tmp_path / "store"))
    preempted(stage, store, STOP)
    assert steps_in(store) == [f"step-{STOP}"]
    assert store.find(f"{stage}/k") is None
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path / "empty"))
    model = train(stage, store, start)
    assert losses(model) == losses(undisturbed(stage))
    assert [step for step, _ in losses(model)] == list(range(1, STEPS + 1))
    assert model.digest == undisturbed(stage).digest
    assert steps_in(store) == []


def test_sigterm_in_the_last_step(tmp_path, preempted, undisturbed, start):
    store = Store(str(tmp_path))
    preempted("sft", store, STEPS)
    assert store.find("sft/k") is None
    model = train("sft", store, start)
    assert losses(model) == losses(undisturbed("sft"))
    assert model.digest == undisturbed("sft").digest


def test_within_a_flow_the_run_ends_as_prefect_ends_it(tmp_path, preempted, prefect_harness):
    store = Store(str(tmp_path))

    @flow(name="preempted")
    def trains(stage: str, where: str, start: dict) -> None:
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        train(stage, Store(where), Artifact(**start))

    preempted("sft", store, STOP, lambda stage, store, start: trains(stage, store.uri, start.model_dump()))
    assert steps_in(store) == [f"step-{STOP}"]
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["preempted"])))
    assert [run.state.type for run in runs if run.state] == [StateType.CRASHED]


# Two runs of one training


@pytest.fixture
def deletes_all(tmp_path) -> Iterator[Store]:
    """Return a store whose checkpoints another process deletes all the time."""
    code = "from sys import argv; from tasks.training.trained_model import *; store = Store(argv[1])\n"
    code += "print('ready', flush=True)\nwhile True: discard(store, 'checkpoints/sft/k')"
    store = Store(str(tmp_path / "store"))
    other = subprocess.Popen([sys.executable, "-c", code, store.uri], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        yield store
        assert other.poll() is None, "the other process did not bear what this one did"
    finally:
        other.kill()
        other.communicate()


def test_checkpoints_that_another_run_deletes_are_not_missed(deletes_all, undisturbed, start):
    assert train("sft", deletes_all, start, save_steps=1).digest == undisturbed("sft").digest


def test_a_checkpoint_may_be_deleted_once_it_is_fetched(tmp_path, preempted, undisturbed, start, monkeypatch):
    store = Store(str(tmp_path))
    preempted("sft", store, STOP)
    ours = tasks.training.trainer.callbacks

    def delete_first(job: Job) -> list[TrainerCallback]:
        discard(store, job.checkpoints)
        return ours(job)

    monkeypatch.setattr(tasks.training.trainer, "callbacks", delete_first)
    model = train("sft", store, start)
    assert losses(model) == losses(undisturbed("sft"))
    assert model.digest == undisturbed("sft").digest


def test_an_older_checkpoint_serves_where_the_last_is_damaged(tmp_path, preempted, undisturbed, start, damage):
    store = Store(str(tmp_path))
    preempted("sft", store, STOP)
    found = store.find(f"checkpoints/sft/k/step-{STOP}")
    assert found is not None
    last = store.path("checkpoints/sft/k/step-8")
    shutil.copytree(store.path(f"checkpoints/sft/k/step-{STOP}"), last)
    damage(f"file://{last}/{read_manifest(found.uri).files['optimizer.pt'].path}", "truncate")
    assert train("sft", store, start).digest == undisturbed("sft").digest


# Checkpoints are pickles, and nobody's pickle is run


class Planted:
    """Unpickled by pickle, creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def planted(tmp_path, preempted, start):
    """Return a function that puts a hostile pickle into a committed checkpoint, and where it would leave its mark."""
    store, mark = Store(str(tmp_path / "store")), tmp_path / "mark"
    hostile = pickle.dumps(Planted(mark), protocol=2)  # what torch.save writes, too
    pickle.loads(hostile)
    assert mark.exists(), "it is not hostile at all"
    mark.unlink()

    def plant(name: str) -> tuple[Store, Path]:
        preempted("sft", store, STOP)
        folder = f"checkpoints/sft/k/step-{STOP}"
        found = store.find(folder)
        assert found is not None
        content, manifest = fetch(found), read_manifest(found.uri)
        files = {name: (content / name).read_bytes() for name in manifest.files} | {name: hostile}
        store.delete(folder)
        store.commit(folder, files, manifest.model_copy(update={"digest": files_digest(files)}))
        return store, mark

    return plant


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_pickle_in_a_checkpoint_is_refused(name, planted, start):
    store, mark = planted(name)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        train("sft", store, start)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["training_args.bin", "pytorch_model.bin"])
def test_a_pickle_that_no_checkpoint_of_ours_has_is_not_read(name, planted, undisturbed, start):
    store, mark = planted(name)
    assert train("sft", store, start).digest == undisturbed("sft").digest
    assert not mark.exists()


def test_arguments_are_not_stored(tmp_path, preempted):
    store = Store(str(tmp_path))
    preempted("sft", store, STOP)
    names = set(read_manifest(f"{store.uri}/checkpoints/sft/k/step-{STOP}").files)
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "model.safetensors"} <= names
    assert "training_args.bin" not in names


# Processes


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


def work(stage: str, store: str, start: str, changes: str) -> None:
    """Train in a process of its own once told to, and print the model; SIGTERM raises, as within a flow run."""
    from trl import SFTTrainer  # noqa: F401 - takes seconds, of which two processes would take different ones

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print("ready", flush=True)
    sys.stdin.readline()
    print(train(stage, Store(store), Artifact.model_validate_json(start), **json.loads(changes)).model_dump_json())


def worker(stage: str, store: Store, start: Artifact, **changes: object) -> "subprocess.Popen[str]":
    """Start a process that trains once `begin` is called."""
    code = "import sys; from test_training import work; work(*sys.argv[1:])"
    arguments = [stage, store.uri, start.model_dump_json(), json.dumps(changes)]
    paths = os.pathsep.join(map(str, (ROOT, SUPPORT, Path(__file__).parent)))
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
