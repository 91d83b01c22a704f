"""Local copies of what is in a store: whole, compared, replaced where they are damaged."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commits import EVERY_STORE, MODEL, commit_model, local_files

from tasks.store import copies
from tasks.store.artifacts import DamagedArtifactError
from tasks.store.folders import Store
from tasks.store.manifests import read_files


def copies_in(cache: Path) -> list[Path]:
    assert local_files(cache / "work") in ([], [cache / "work" / f"{socket.gethostname()}.lock"])
    return [path for path in cache.glob("*") if path.name not in ("work", "hashes.sqlite")]


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
