"""A folder of a store: what is committed is found and read, whole or not at all; names are listed."""

import json

import pytest
from commits import EVERY_STORE, MODEL, PROVENANCE, REWARDS, commit_model, commit_rewards, read_all

from tasks.store.artifacts import NOTHING, Artifact, DamagedArtifactError, files_digest, sha256_of
from tasks.store.filesystem import open_fs
from tasks.store.folders import Store
from tasks.store.manifests import read_files
from tasks.store.parquet import read_table


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
