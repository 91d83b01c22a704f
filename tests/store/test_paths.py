"""Paths and URIs: none leads out of the store, none repeats a secret; stores that cannot be written."""

import contextlib
import os

import pytest
from commits import EVERY_STORE, commit_model, local_files
from hypothesis import given
from hypothesis import strategies as st
from s3fs import S3FileSystem

from tasks.store import copies
from tasks.store.artifacts import DamagedArtifactError
from tasks.store.folders import Store, open_store
from tasks.store.manifests import read_manifest

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
