"""Fixtures for tests of training."""

import functools
import signal
from collections.abc import Callable

import pytest
from trainings import Preempt, PreemptedError, train

import tasks.training.trainer
from tasks.examples.world import write_base_model
from tasks.store.artifacts import Artifact, Provenance, files_digest
from tasks.store.drafts import Draft
from tasks.store.folders import Store


@pytest.fixture(scope="session")
def start(tmp_path_factory) -> Artifact:
    """Return the world's untrained model."""
    store, folder = Store(str(tmp_path_factory.mktemp("start"))), tmp_path_factory.mktemp("base")
    write_base_model(folder, seed=0)
    files = {path.name: path for path in folder.iterdir()}
    draft = Draft(store, Provenance(stage="store_model", version=1, key="k"))
    return draft.commit("model", files, files_digest(files))


@pytest.fixture(scope="session")
def undisturbed(start, tmp_path_factory):
    """Return a function that trains a stage to its end, once."""
    return functools.cache(lambda stage: train(stage, Store(str(tmp_path_factory.mktemp(stage))), start))


@pytest.fixture
def another_worker(start, tmp_path, monkeypatch):
    """Return a function that trains on a machine without local copies."""

    def go_on(stage: str, store: Store) -> Artifact:
        monkeypatch.setenv("RSDPO_CACHE", str(tmp_path / "empty"))
        return train(stage, store, start)

    return go_on


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
