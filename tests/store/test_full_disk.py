"""A disk that is full."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import mounted
from small_stores import commit

from tasks.store.filesystem import StoreError
from tasks.store.folders import open_store


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", megabytes=1) as folder:
        yield folder


def test_a_full_disk_is_an_error_that_says_so(small_disk):
    store, ballast = open_store(str(small_disk / "store")), small_disk / "ballast"
    ballast.write_bytes(bytes(1_036_000))  # leaves room for the configuration, not for the weights
    with pytest.raises(StoreError, match=r"model\.safetensors cannot be written .*No space left.*disk space"):
        commit(store, 1)
    assert store.find("m/1") is None
    assert list(small_disk.rglob("*.safetensors")) == list(small_disk.rglob(".partial-*")) == []
    ballast.unlink()
    assert commit(store, 1) == store.find("m/1")


def test_a_file_that_cannot_grow_leaves_nothing(tmp_path):
    store = open_store(str(tmp_path / "store"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        try:
            commit(store, 1)
            os._exit(0)
        except StoreError as error:
            os._exit(1 if "File too large" in str(error) else 2)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert store.find("m/1") is None
    assert list(tmp_path.rglob("*.safetensors")) == list(tmp_path.rglob(".partial-*")) == []
    assert commit(store, 1) == store.find("m/1")
