"""Fixtures of the tests that need a GPU: where they compute, and a small world of stages' inputs in a store.

`RSDPO_GPU_TESTS=cpu` runs those that a CPU can run, to try the tests themselves where there is no GPU.
"""

import importlib.util
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpu_chain import Inputs, commit_inputs

from tasks.store.folders import Store

ON_CPU = os.environ.get("RSDPO_GPU_TESTS") == "cpu"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip where there is no GPU, so that a run of these tests says why none of them was run."""
    import torch

    if not torch.cuda.is_available() and not ON_CPU:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=f"torch {torch.__version__} sees no NVIDIA GPU"))


@pytest.fixture
def needs() -> Callable[..., None]:
    """Return a function that skips a test, and says why, where a package is missing."""

    def check(*names: str) -> None:
        for name in names:
            if importlib.util.find_spec(name) is None:
                pytest.skip(f"{name} is not installed")

    return check


@pytest.fixture
def card() -> Any:
    """Return `torch.cuda`; a test that asks for it is skipped on a CPU."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("it measures the memory of a GPU")
    return torch.cuda


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store for all tests."""
    return Store(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="session")
def inputs(home: Store, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Return the world's untrained model, demonstrations, preferences and prompts."""
    folder: Path = tmp_path_factory.mktemp("base_model")
    return commit_inputs(home, folder, random.Random(0))
