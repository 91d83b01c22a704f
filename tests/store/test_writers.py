"""Writers that die in the middle, and writers that meet."""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pyarrow as pa
import pytest
from commits import EVERY_STORE, MODEL, commit_model, read_all

from tasks.store.artifacts import Artifact, DamagedArtifactError, Provenance, checksum_of, files_digest
from tasks.store.drafts import Draft
from tasks.store.filesystem import open_fs
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.manifests import read_files


@EVERY_STORE
def test_a_folder_without_manifest_is_not_found(store):
    assert store.find("m/1") is None
    artifact = commit_model(store)
    fs, path = open_fs(artifact.uri)
    fs.rm_file(f"{path}/manifest.json")
    assert fs.find(path), "the files themselves are still there"
    assert store.find("m/1") is None
    with pytest.raises(DamagedArtifactError, match="never completed"):
        read_files(artifact)


@pytest.mark.parametrize("survives", range(len(MODEL) + 1))
def test_a_writer_that_fails_at_any_write_leaves_nothing(store, survives, monkeypatch):
    put, written = Store._put, []

    def failing_put(self, data, relative):
        if len(written) == survives:
            raise OSError("no space left")
        put(self, data, relative)
        written.append(relative)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_put", failing_put)
        with pytest.raises(OSError, match="no space left"):
            commit_model(store)
    assert store.find("m/1") is None
    assert commit_model(store) == store.find("m/1")
    assert read_all(store.find("m/1")) == MODEL


def test_a_killed_writer_leaves_all_or_nothing(tmp_path):
    store, files = Store(str(tmp_path / "store")), {f"{i:02}.bin": os.urandom(300_000) for i in range(24)}
    interrupted = 0
    for attempt in range(0, 24, 3):  # killed once so many files are there
        folder = tmp_path / "store" / "m" / str(attempt)
        child = os.fork()
        if child == 0:
            try:
                commit_model(store, f"m/{attempt}", files)
            finally:
                os._exit(0)
        while len(list(folder.glob("*/*.bin"))) < attempt:
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = store.find(f"m/{attempt}")
        interrupted += found is None
        assert found is None or read_all(found) == files
        assert read_all(commit_model(store, f"m/{attempt}", files)) == files
    assert interrupted > 0, "no kill came in the middle of a commit"


@pytest.mark.parametrize("writers", [2, 4])
def test_writers_of_one_folder_never_mix(store, writers):
    def contents(writer: int) -> dict[str, bytes]:
        return {f"{i}.bin": b"%d" % writer * 5_000 for i in range(6)}

    def write(writer: int) -> Artifact:
        together.wait()
        return commit_model(store, folder, contents(writer))

    for attempt in range(6):
        folder, together = f"m/{attempt}", Barrier(writers)
        with ThreadPoolExecutor(writers) as pool:
            made = list(pool.map(write, range(writers)))
        found = store.find(folder)
        assert found in made
        assert files_digest(read_all(found)) == found.digest
        assert read_all(found) in [contents(writer) for writer in range(writers)]


def commit_number(store: Store, number: int) -> Artifact:
    """Commit under a stage key, with content that differs from one writer to the other."""
    draft = Draft(store, Provenance(stage="count", version=1, key="c" * 64))
    return draft.commit("number", {"n.txt": b"%d" % number}, f"{number:064}", rows=number)


def append_number(store: Store, number: int) -> Artifact:
    table = GrowingTable(store, "rewards", Provenance(stage="rewards", version=1, key="d" * 64))
    rows = pa.table({"prompt_id": ["p"], "completion_id": [0], "reward": [float(number)]})
    return table.append("one", rows)


@pytest.mark.parametrize("write", [commit_number, append_number])
def test_of_two_writers_both_return_what_stands(write, store, monkeypatch):
    put, made = Store._put, []

    def overtaken(own: Store, data: object, relative: str) -> None:
        put(own, data, relative)
        if not made:  # the first writer has written its file, and not its manifest
            made.append(None)
            made[0] = write(store, 2)

    monkeypatch.setattr(Store, "_put", overtaken)
    first = write(store, 1)
    assert first == made[0] == store.find(store.folder_of(first))
    assert write(store, 3) == first


@pytest.mark.parametrize("write", [commit_number, append_number])
def test_a_writer_that_comes_last_is_what_both_go_on_with(write, store, monkeypatch):
    put, made = Store._put, []

    def overtaken(own: Store, data: object, relative: str) -> None:
        put(own, data, relative)
        if relative.endswith("manifest.json") and not made:  # both had seen that there is nothing
            made.append(None)
            with monkeypatch.context() as blind:
                blind.setattr(Store, "find", lambda *_: None)
                made[0] = write(store, 2)

    monkeypatch.setattr(Store, "_put", overtaken)
    first = write(store, 1)
    assert first == made[0] == store.find(store.folder_of(first))


def test_a_manifest_with_fields_that_are_not_known_here_is_read(store):
    artifact = commit_model(store)
    fs, path = open_fs(f"{artifact.uri}/manifest.json")
    fields = json.loads(fs.cat_file(path)) | {"added_later": {"a": 1.5}}
    fs.pipe_file(path, json.dumps(fields).encode())
    assert store.find("m/1") is None, "its checksum covers all that was written"
    fields["checksum"] = checksum_of(json.dumps(fields).encode())
    fs.pipe_file(path, json.dumps(fields).encode())
    assert store.find("m/1") == artifact
    older = {name: value for name, value in fields.items() if name not in ("added_later", "keeps")}
    fs.pipe_file(path, json.dumps({**older, "checksum": checksum_of(json.dumps(older).encode())}).encode())
    assert store.find("m/1") == artifact
