"""Fixtures: a kept store with the record of its run."""

import pytest
from kept_store import kept_run, kept_store

from tasks.store.folders import Store
from tasks.store.runs import Run


@pytest.fixture
def kept(tmp_path) -> tuple[Store, Run]:
    """Return a copy of a store, and a finished run of it."""
    store = kept_store(tmp_path / "store")
    return store, kept_run(store)
