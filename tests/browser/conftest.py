"""A small store with two runs, and a client of its pages."""

import pytest
from browsed_store import Size, random_texts, write_run
from browsing import Browsed, browse

from tasks.selection.strategies import PairsConfig
from tasks.store.folders import Store


@pytest.fixture(scope="module")
def browsed(tmp_path_factory: pytest.TempPathFactory) -> Browsed:
    """Two runs: 12 prompts with 4 completions; then the first 8 of these by other models with 6, and another tau."""
    store = Store(str(tmp_path_factory.mktemp("browsed") / "store"))
    first = write_run(store, Size(12), "first")
    second = write_run(store, Size(8, k=6), "second", texts=random_texts(5), pairs=PairsConfig(tau=0.5))
    return browse(store, [first, second])
