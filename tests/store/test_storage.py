import contextlib
import hashlib
import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from s3fs import S3FileSystem

from tasks.store import copies, parquet
from tasks.store.artifacts import (
    NOTHING,
    Artifact,
    Content,
    DamagedArtifactError,
    Manifest,
    Provenance,
    checksum_of,
    files_digest,
    sha256_of,
)
from tasks.store.drafts import Draft
from tasks.store.filesystem import open_fs
from tasks.store.folders import Store, open_store, read_bytes, read_files, read_manifest
from tasks.store.growing import GrowingTable
from tasks.store.parquet import read_table
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest
from tasks.store.verify import etag_of

PROVENANCE = Provenance(
    stage="train_sft", version=3, key="a" * 64, inputs={"base_model": "b" * 64}, config={"sft": {"seed": 7}}
)
MODEL = {"config.json": b'{"hidden_size": 4}', "model.safetensors": bytes(range(256)) * 40, "tokenizer.json": b"{}\n"}
REWARDS = pa.table(
    {"prompt_id": ["p", "p", "q"], "completion_id": [0, 1, 0], "reward": [0.5, -1.0, 2.0]}, schema=SCHEMAS["rewards"]
)
DAMAGES = ["flip", "truncate", "delete"]
EVERY_STORE = pytest.mark.parametrize("store_uri", ["file", "s3", "moto"], indirect=True)
ODD_PATHS = [
    "..",
    "../x",
    "a/../b",
    "a/..",
    "/etc",
    "a//b",
    "",
    ".",
    "a/.b",
    "a/",
    "a b",
    "a\\b",
    "a\n",
    "\0",
    "ü",
    "~",
]


def commit_model(store: Store, folder: str = "m/1", files: Mapping[str, Content] = MODEL) -> Artifact:
    return store.commit(folder, files, Manifest(kind="model", digest=files_digest(files), provenance=PROVENANCE))


def commit_rewards(store: Store) -> Artifact:
    digest = format_digest(rows_digest(REWARDS))
    files = {"rows.parquet": parquet.table_bytes(REWARDS, "rewards")}
    return store.commit("r/1", files, Manifest(kind="rewards", digest=digest, rows=3, provenance=PROVENANCE))


def read_all(artifact: Artifact) -> dict[str, bytes]:
    return {name: read_bytes(artifact, name) for name in read_files(artifact)}


def copies_in(cache: Path) -> list[Path]:
    assert local_files(cache / "work") in ([], [cache / "work" / f"{socket.gethostname()}.lock"])
    return [path for path in cache.iterdir() if path.name != "work"] if cache.exists() else []


def local_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# Round trip


@EVERY_STORE
def test_what_is_committed_is_found_and_read(store):
    made = commit_rewards(store)
    assert made == store.find("r/1") == Store(store.uri + "/").find("r/1")
    assert (made.kind, made.rows, made.uri) == ("rewards", 3, f"{store.uri}/r/1")
    assert read_table(made).equals(REWARDS)
    assert read_table(made).schema.metadata == {b"version": b"1"}
    assert made
    assert not NOTHING


@EVERY_STORE
def test_local_files_are_committed_like_bytes(store, tmp_path):
    for name, content in MODEL.items():
        (tmp_path / name).write_bytes(content)
    from_files = commit_model(store, "m/1", {name: tmp_path / name for name in MODEL})
    from_bytes = commit_model(store, "m/2")
    assert from_files.digest == from_bytes.digest
    assert read_all(from_files) == read_all(from_bytes) == MODEL


def test_the_manifest_says_what_was_made_and_from_what(store):
    fs, path = open_fs(commit_model(store).uri)
    manifest = json.loads(fs.cat_file(f"{path}/manifest.json"))
    for name, content in MODEL.items():
        entry = manifest["files"][name]
        assert (entry["size"], entry["sha256"]) == (len(content), sha256_of(content))
        assert fs.cat_file(f"{path}/{entry['path']}") == content
    assert manifest["files"].keys() == MODEL.keys()
    assert manifest["provenance"] == PROVENANCE.model_dump()
    assert manifest["libraries"]["torch"]
    assert manifest["libraries"]["rs-dpo"]
    assert manifest["created"].endswith("+00:00")


def test_the_digest_names_contents_and_their_names():
    digest = files_digest(MODEL)
    assert digest == files_digest(dict(reversed(MODEL.items())))
    assert digest != files_digest({**MODEL, "tokenizer.json": b"{}"})
    assert digest != files_digest({**MODEL, "tokenizer.json": MODEL["config.json"], "config.json": b"{}\n"})
    assert files_digest({"a": b"x"}) != files_digest({"b": b"x"})


@EVERY_STORE
def test_a_reference_to_replaced_content_is_refused(store):
    old = commit_model(store)
    new = commit_model(store, files={**MODEL, "config.json": b"{}"})
    assert store.find("m/1") == new
    with pytest.raises(DamagedArtifactError, match="now holds"):
        read_files(old)


@EVERY_STORE
def test_names_are_listed_and_deleted(store):
    assert store.list("m") == []
    commit_model(store, "m/2")
    commit_model(store, "m/1")
    assert store.list("m") == ["1", "2"]
    store.delete("m/1")
    store.delete("m/1")
    assert store.list("m") == ["2"]
    assert store.find("m/1") is None


def test_an_artifact_of_another_store_has_no_folder_here(store):
    assert store.folder_of(commit_model(store)) == "m/1"
    with pytest.raises(ValueError, match="is not in the store"):
        store.folder_of(Artifact(kind="model", uri=f"{store.uri}-2/m/1", digest=""))


# Writers that die, writers that meet


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


# Damage


@EVERY_STORE
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_table_is_noticed(store, how, damage):
    artifact = commit_rewards(store)
    assert store.find("r/1") == artifact  # seen once by this process: it must be compared again all the same
    damage(f"{artifact.uri}/{read_files(artifact)['rows.parquet'].path}", how)
    assert store.find("r/1") is None
    with pytest.raises(DamagedArtifactError, match=r"rows\.parquet.*run again"):
        read_table(artifact)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", MODEL)
def test_a_damaged_file_of_a_model_is_noticed(store, name, how, damage):
    artifact = commit_model(store)
    assert store.find("m/1") == artifact
    damage(f"{artifact.uri}/{read_files(artifact)[name].path}", how)
    assert store.find("m/1") is None
    with pytest.raises(DamagedArtifactError, match=f"{name}.*run again"):
        read_bytes(artifact, name)
    assert all(read_bytes(artifact, other) == MODEL[other] for other in MODEL.keys() - {name})


@pytest.mark.parametrize("how", ["truncate", "delete"])
def test_a_damaged_manifest_is_noticed(store, how, damage):
    artifact = commit_rewards(store)
    damage(f"{artifact.uri}/manifest.json", how)
    assert store.find("r/1") is None
    with pytest.raises(DamagedArtifactError, match="run again"):
        read_table(artifact)


def test_no_flipped_bit_of_the_manifest_changes_an_artifact(tmp_path):
    store = Store(str(tmp_path))
    artifact = commit_rewards(store)
    path = tmp_path / "r" / "1" / "manifest.json"
    intact, found = path.read_bytes(), []
    for place in range(0, len(intact), 2):
        path.write_bytes(intact[:place] + bytes([intact[place] ^ 1]) + intact[place + 1 :])
        found.append(store.find("r/1"))
    assert [other for other in found if other not in (None, artifact)] == []


@EVERY_STORE
def test_an_artifact_with_a_missing_part_is_not_found(store):
    part = commit_model(store, "m/part")
    whole = Manifest(kind="slices", digest="1", provenance=PROVENANCE, parts={"m/part": part.digest})
    assert store.commit("s/1", {"slices.json": b"[]"}, whole) == store.find("s/1")
    other = whole.model_copy(update={"parts": {"m/part": "0" * 64}})
    store.commit("s/2", {"slices.json": b"[]"}, other)
    assert store.find("s/2") is None, "the part holds something else"
    store.delete("m/part")
    assert store.find("s/1") is None


# Paths and URIs


@pytest.mark.parametrize("path", ODD_PATHS)
def test_no_path_leaves_the_store(path, tmp_path):
    store = Store(str(tmp_path / "store"))
    for use in (store.path, store.find, store.list, store.delete, lambda name: commit_model(store, name)):
        with pytest.raises(ValueError, match="no path within a store"):
            use(path)
    with pytest.raises(ValueError, match="no path within a store"):
        commit_model(store, "m/1", {path: b"content"})
    assert local_files(tmp_path) == []


@given(path=st.text("ab./_-~\\ \n0A", max_size=12))
def test_accepted_paths_are_below_the_root(path):
    store = Store("file:///somewhere/store")
    try:
        full = store.path(path)
    except ValueError:
        return
    assert os.path.normpath(full) == full
    assert full.startswith("/somewhere/store/")


@pytest.mark.parametrize("name", ["../../outside.txt", "{folder}/outside.txt"])
def test_a_foreign_manifest_cannot_write_outside_of_the_cache(s3_uri, name, tmp_path, monkeypatch):
    cache = tmp_path / "a" / "b" / "cache"
    monkeypatch.setenv("RSDPO_CACHE", str(cache))
    store = Store(s3_uri)
    artifact = commit_model(store)
    manifest = read_manifest(artifact.uri)
    files = {name.format(folder=tmp_path): manifest.files["config.json"]}
    foreign = manifest.model_copy(update={"files": files}).model_dump_json().encode()
    store.fs.pipe_file(store.path("m/1/manifest.json"), foreign)
    with contextlib.suppress(ValueError, DamagedArtifactError):
        copies.fetch(artifact)
    assert [path for path in local_files(tmp_path) if not path.is_relative_to(cache)] == []


@pytest.mark.parametrize("uri", ["s3://user:hush@bucket/x", "s3://user@bucket", "file://user:hush@host/x"])
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri):
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID") as caught:
        Store(uri)
    assert "hush" not in str(caught.value)


def test_credentials_with_another_scheme_are_not_repeated():
    with pytest.raises(ValueError, match="store") as caught:
        Store("https://user:hush@host/x")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("uri", ["https://host/x", "gs://bucket/x", "S3://bucket"])
def test_other_schemes_are_refused(uri):
    with pytest.raises(ValueError, match=r"must be a folder, file:///\.\.\. or s3://"):
        Store(uri)


@pytest.mark.parametrize("uri", ["s3://", "s3:///prefix", "s3:bucket/prefix"])
def test_an_s3_uri_needs_a_bucket(uri):
    with pytest.raises(ValueError, match="s3://bucket"):
        Store(uri)


def test_a_relative_folder_and_its_uri_are_one_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Store("./store").uri == Store("store/").uri == (tmp_path / "store").as_uri()
    commit_model(Store("store"))
    assert (tmp_path / "store" / "m" / "1" / "manifest.json").is_file()


@pytest.mark.parametrize("name", ["my store", "störe", "a@b", "100%"])
def test_a_folder_keeps_its_name(name, tmp_path):
    open_store(str(tmp_path / name))
    commit_model(Store(str(tmp_path / name)))
    assert [path.name for path in tmp_path.iterdir()] == [name]


# Stores that cannot be written


@EVERY_STORE
def test_a_writable_store_is_left_empty(store):
    open_store(store.uri)
    assert store.fs.find(store.root) == []


def test_a_store_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/store cannot be written .*check permissions and disk"):
        open_store(str(tmp_path / "file" / "store"))


def test_a_missing_bucket_is_refused(s3_server):
    with pytest.raises(ValueError, match=r"s3://no-such-bucket/x cannot be written .*check the bucket"):
        open_store("s3://no-such-bucket/x")


def test_wrong_credentials_are_refused_and_not_repeated(s3_uri, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(ValueError, match=r"cannot be written .*check .*AWS_SECRET_ACCESS_KEY") as caught:
            open_store(s3_uri)
    finally:
        S3FileSystem.clear_instance_cache()
    assert "hush" not in str(caught.value)


def test_two_runs_with_one_process_id_can_check_a_store_at_once(tmp_path, monkeypatch):
    put, store = Store._put, Store(str(tmp_path))

    def put_while_another_run_cleans_up(self, data, relative):
        put(self, data, relative)
        monkeypatch.setattr(Store, "_put", put)
        self.check_writable()

    monkeypatch.setattr(Store, "_put", put_while_another_run_cleans_up)
    store.check_writable()


# Local copies


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@EVERY_STORE
def test_fetch_gives_a_folder_with_the_files(store, cache):
    artifact = commit_model(store)
    folder = copies.fetch(artifact)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == MODEL
    assert copies.fetch(artifact) == folder
    in_cache = [folder] if store.uri.startswith("s3://") else []
    assert copies_in(cache) == in_cache


@pytest.mark.parametrize("how", ["flip", "truncate"])
def test_fetch_refuses_damaged_files(store, how, damage, cache):
    artifact = commit_model(store)
    damage(f"{artifact.uri}/{read_files(artifact)['model.safetensors'].path}", how)
    with pytest.raises(DamagedArtifactError, match=r"model\.safetensors"):
        copies.fetch(artifact)


def test_fetch_refuses_a_local_folder_with_a_missing_file(tmp_path, damage):
    artifact = commit_model(Store(str(tmp_path)))
    damage(f"{artifact.uri}/{read_files(artifact)['config.json'].path}", "delete")
    with pytest.raises(DamagedArtifactError, match="missing"):
        copies.fetch(artifact)


def test_fetch_refuses_an_s3_folder_with_a_missing_file(s3_uri, damage, cache):
    artifact = commit_model(Store(s3_uri))
    damage(f"{artifact.uri}/{read_files(artifact)['config.json'].path}", "delete")
    with pytest.raises(DamagedArtifactError, match=r"config\.json"):
        copies.fetch(artifact)


def test_a_failed_download_leaves_no_copy(s3_uri, damage, cache):
    artifact = commit_model(Store(s3_uri))
    damage(f"{artifact.uri}/{read_files(artifact)['config.json'].path}", "flip")
    with pytest.raises(DamagedArtifactError):
        copies.fetch(artifact)
    assert copies_in(cache) == []


def test_a_damaged_copy_is_noticed_and_replaced(s3_uri, cache):
    artifact = commit_model(Store(s3_uri))
    folder = copies.fetch(artifact)
    (folder / "config.json").write_bytes(b'{"hidden_size": 5}')
    assert (copies.fetch(artifact) / "config.json").read_bytes() == MODEL["config.json"]


def test_deleting_the_damaged_file_as_told_mends_the_copy(s3_uri, cache):
    artifact = commit_model(Store(s3_uri))
    (copies.fetch(artifact) / "config.json").unlink()
    assert (copies.fetch(artifact) / "config.json").read_bytes() == MODEL["config.json"]


def test_copies_fetched_at_once_are_whole(s3_uri, cache):
    artifact = commit_model(Store(s3_uri))
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: copies.fetch(artifact), range(4)))
    assert folders == {cache / artifact.digest}
    assert {path.name: path.read_bytes() for path in (cache / artifact.digest).iterdir()} == MODEL


@EVERY_STORE
def test_fetch_without_weights_reads_the_rest_alone(store, cache, damage):
    artifact = commit_model(store)
    damage(f"{artifact.uri}/{read_files(artifact)['model.safetensors'].path}", "flip")
    folder = copies.fetch(artifact, weights=False)
    assert (folder / "config.json").read_bytes() == MODEL["config.json"]
    with pytest.raises(DamagedArtifactError, match=r"model\.safetensors"):
        copies.fetch(artifact)
    assert copies.fetch(artifact, weights=False) == folder
    if store.uri.startswith("s3://"):
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", "tokenizer.json"]
        assert copies_in(cache) == [folder] == [cache / f"{artifact.digest}-no-weights"]


# What S3 calls a content


def test_etags_are_md5_of_the_content_or_of_its_pieces_md5s(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.store.verify.PIECE", 4)
    assert etag_of(b"1234567") == hashlib.md5(b"1234567").hexdigest()
    pieces = b"".join(hashlib.md5(piece).digest() for piece in (b"1234", b"5678", b"9"))
    (tmp_path / "file").write_bytes(b"123456789")
    assert etag_of(b"123456789") == etag_of(tmp_path / "file") == f"{hashlib.md5(pieces).hexdigest()}-3"


def test_a_file_with_its_etag_is_not_read_to_be_looked_up(s3_uri, monkeypatch, damage):
    store = Store(s3_uri)
    made = store.commit(
        "stage/key", {"a.txt": b"a" * 100}, Manifest(kind="text", digest="c" * 64, provenance=PROVENANCE)
    )
    with monkeypatch.context() as patch:
        patch.setattr("tasks.store.verify.read_with", lambda *_: pytest.fail("the file was read"))
        assert store.find("stage/key") == made
    damage(f"{s3_uri}/stage/key/{read_manifest(made.uri).files['a.txt'].path}", "flip")
    assert store.find("stage/key") is None
