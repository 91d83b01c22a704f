"""Checkpoints that another run deletes, that are damaged, that a stranger wrote."""

import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import ROOT
from trainings import STOP, losses, train
from transformers import TrainerCallback

import tasks.training.trainer
from tasks.pipeline.jobs import Job
from tasks.store.artifacts import files_digest
from tasks.store.copies import fetch
from tasks.store.folders import Store
from tasks.store.manifests import read_manifest
from tasks.training.trained_model import discard

pytestmark = pytest.mark.usefixtures("one_thread")


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
