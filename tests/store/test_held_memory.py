"""The memory of hashes, held by a process that does not let go, or of a kind that this version cannot write."""

import os
import sqlite3
import time

import pytest

from tasks.store import hashed
from tasks.store.hashed import file_sha256, forget, recall, remember
from tasks.store.scratch import cache_folder


@pytest.fixture(autouse=True)
def own_memory(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hashed, "_BUSY_SECONDS", 0.3)


def test_a_memory_that_another_process_holds_is_waited_for_once(tmp_path):
    remember("file:///a", 1, "t", "b" * 64)
    hashed._connect.cache_clear()
    holder = sqlite3.connect(cache_folder() / "hashes.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    files = [tmp_path / str(number) for number in range(30)]
    for file in files:
        file.write_bytes(b"one")
    start = time.monotonic()
    assert len({file_sha256(file) for file in files}) == 1
    assert time.monotonic() - start < 3, "each of 60 questions waited"
    holder.close()


def test_what_cannot_be_forgotten_one_by_one_is_forgotten_all_at_once():
    remember("file:///a", 1, "t", "b" * 64)
    hashed._connect.cache_clear()
    holder = sqlite3.connect(cache_folder() / "hashes.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")  # others may read
    forget("file:///a")
    holder.close()
    assert recall("file:///a", 1, "t") is None


def test_a_memory_of_another_version_is_made_anew():
    path = cache_folder() / "hashes.sqlite"
    path.parent.mkdir(parents=True)
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE hashes (place TEXT, size INTEGER, tag TEXT, sha256 TEXT, kind TEXT NOT NULL)")
    other.commit()
    other.close()
    assert recall("file:///a", 1, "t") is None
    remember("file:///a", 1, "t", "b" * 64)
    remember("file:///a", 1, "t", "b" * 64)
    assert recall("file:///a", 1, "t") == "b" * 64


def test_a_file_whose_name_is_no_text_is_read(tmp_path):
    file = tmp_path / os.fsdecode(b"caf\xe9")
    file.write_bytes(b"one")
    assert file_sha256(file) == file_sha256(file)
