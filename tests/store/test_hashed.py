"""Hashes that a machine keeps of files: what counts as unchanged, and a memory that is damaged or cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commits import MODEL, commit_model

from tasks.store import hashed, verify
from tasks.store.artifacts import DamagedArtifactError, sha256_of
from tasks.store.copies import fetch
from tasks.store.folders import Store
from tasks.store.hashed import file_sha256, forget, recall, remember, tag_of
from tasks.store.manifests import read_files
from tasks.store.scratch import cache_folder


@pytest.fixture(autouse=True)
def own_memory(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path / "cache"))


def reads(monkeypatch) -> list[str]:
    """Return a list that grows by each file that is read whole to be compared."""
    read, seen = verify.read_with, []

    def counted(uri, entry, consume):
        seen.append(entry.path.rpartition("/")[2])
        return read(uri, entry, consume)

    monkeypatch.setattr(verify, "read_with", counted)
    return seen


def test_a_hash_is_known_of_this_size_and_this_tag_alone():
    remember("file:///a", 3, "1-2-3", "f" * 64)
    assert recall("file:///a", 3, "1-2-3") == "f" * 64
    assert [recall("file:///a", 4, "1-2-3"), recall("file:///a", 3, "1-2-4"), recall("file:///b", 3, "1-2-3")] == [
        None
    ] * 3
    remember("file:///a", 3, "1-2-4", "e" * 64)
    assert recall("file:///a", 3, "1-2-4") == "e" * 64
    forget("file:///a")
    assert recall("file:///a", 3, "1-2-4") is None


def test_a_file_is_read_again_after_any_change_even_one_that_sets_the_time_back(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"one")
    before = file.stat()
    assert file_sha256(file) == sha256_of(b"one")
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert file_sha256(file) == sha256_of(b"two")


def test_a_file_is_not_read_twice_and_what_is_kept_is_seen_by_other_processes(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"one")
    file_sha256(file)
    stat = file.stat()
    remember(str(file), stat.st_size, tag_of(stat), "a" * 64)  # what only somebody who does not read would return
    assert file_sha256(file) == "a" * 64
    asked = (
        f"from pathlib import Path; from tasks.store.hashed import file_sha256; print(file_sha256(Path({str(file)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "a" * 64


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\x00" + bytes(range(256)) * 20])
def test_a_damaged_memory_is_made_anew(content):
    path = cache_folder() / "hashes.sqlite"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert recall("file:///a", 1, "t") is None
    remember("file:///a", 1, "t", "b" * 64)
    assert recall("file:///a", 1, "t") == "b" * 64


def test_without_a_place_for_the_memory_files_are_read(tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path / "taken"))
    file = tmp_path / "file"
    file.write_bytes(b"one")
    assert [file_sha256(file), file_sha256(file)] == [sha256_of(b"one")] * 2


def test_a_look_up_reads_no_file_that_this_machine_wrote_or_read(tmp_path, monkeypatch):
    seen = reads(monkeypatch)
    store = Store(str(tmp_path / "store"))
    artifact = commit_model(store)
    assert store.find("m/1") == artifact
    assert fetch(artifact, weights=False).is_dir()
    assert seen == []
    hashed._connect.cache_clear()
    (cache_folder() / "hashes.sqlite").unlink()
    assert store.find("m/1") == artifact
    assert sorted(seen) == sorted(MODEL)
    assert store.find("m/1") == artifact
    assert len(seen) == len(MODEL)


def test_a_copy_of_a_store_is_read_once(tmp_path, monkeypatch):
    commit_model(Store(str(tmp_path / "store")))
    subprocess.run(["cp", "-a", tmp_path / "store", tmp_path / "copy"], check=True)
    seen = reads(monkeypatch)
    assert Store(str(tmp_path / "copy")).find("m/1") is not None
    assert sorted(seen) == sorted(MODEL)


def test_damage_that_no_time_shows_is_found_when_the_file_is_read_and_then_by_every_look_up(tmp_path):
    store = Store(str(tmp_path / "store"))
    artifact = commit_model(store)
    entry = read_files(artifact)["model.safetensors"]
    uri = f"{artifact.uri}/{entry.path}"
    path = Path(uri.removeprefix("file://"))
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    stat = path.stat()
    remember(uri, stat.st_size, tag_of(stat), entry.sha256)  # as if the disk had lost a bit by itself
    assert store.find("m/1") == artifact
    with pytest.raises(DamagedArtifactError, match="does not match the hash"):
        verify.read_entry(artifact.uri, entry)
    assert store.find("m/1") is None
    assert commit_model(store) == artifact
    assert store.find("m/1") == artifact
