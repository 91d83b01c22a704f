"""What a child that trains on a GPU sees of the others, what it says that it took, and what a process gives back."""

import gc
import json
import os
import weakref
from pathlib import Path

import pytest
from runs import ROOT

from tasks.lm.memory import frees_memory
from tasks.pipeline.jobs import Job, first_gpu, run_job
from tasks.store.cost import COST, Cost

SOURCE = """
import json, os

def fit(job):
    (job.folder / "seen.txt").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    (job.folder / "gpu.json").write_text(json.dumps({"device": "card", "peak_gpu_memory": job.config["peak"]}))
"""


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that runs a job in a child, as where there is a GPU; it returns what the child saw."""
    (tmp_path / "sees.py").write_text(SOURCE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)

    def run(peak: int) -> str:
        config = {"devices": 1, "peak": peak}
        run_job(Job(fit="sees:fit", folder=tmp_path, model=tmp_path, store="s", config=config))
        return (tmp_path / "seen.txt").read_text()

    return run


def test_a_training_on_one_device_sees_the_first_gpu_alone(train, monkeypatch):
    """TRL refuses to train where it sees several from one process."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert train(1) == "2"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert first_gpu() == {"CUDA_VISIBLE_DEVICES": "0"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6")
    assert first_gpu() == {"CUDA_VISIBLE_DEVICES": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"}


def test_the_cost_names_the_gpu_of_the_largest_child(train):
    cost = Cost()
    token = COST.set(cost)
    try:
        train(3 << 30)
        train(1 << 30)
    finally:
        COST.reset(token)
    found = cost.measure()
    assert (found["device"], found["peak_gpu_memory"]) == ("card", 3 << 30)


def test_what_an_earlier_child_said_is_not_said_of_this_one(tmp_path, monkeypatch):
    (tmp_path / "gpu.json").write_text(json.dumps({"device": "card", "peak_gpu_memory": 1}))
    (tmp_path / "silent.py").write_text("def fit(job):\n    pass\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    token = COST.set(Cost())
    try:
        run_job(Job(fit="silent:fit", folder=tmp_path, model=tmp_path, store="s", config={"devices": 1}))
        assert COST.get().measure()["device"] == "cpu"
    finally:
        COST.reset(token)


class Model:
    """Refers to itself, as a model whose forward method was replaced."""

    def __init__(self) -> None:
        self.forward = self.call

    def call(self) -> None: ...


def test_models_in_cycles_go_with_the_function_that_loaded_them():
    loaded = []

    @frees_memory
    def score() -> str:
        """Score."""
        model = Model()
        loaded.append(weakref.ref(model))
        return "scored"

    gc.disable()
    try:
        assert score() == "scored"
        assert loaded[0]() is None
        assert score.__doc__ == "Score."
    finally:
        gc.enable()
