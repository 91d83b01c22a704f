"""A store behind a network that fails, and behind a server that refuses."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from faulty_proxy import FaultyProxy
from s3_servers import rclone, used_by_s3fs
from small_stores import PROVENANCE, commit, completions, content_of

from tasks.store import filesystem
from tasks.store.artifacts import Artifact, DamagedArtifactError, Manifest, Provenance, files_digest
from tasks.store.copies import fetch
from tasks.store.cover import select_slices
from tasks.store.drafts import Draft
from tasks.store.filesystem import StoreError, open_fs
from tasks.store.folders import Store, open_store
from tasks.store.growing import GrowingTable
from tasks.store.manifests import read_bytes, read_files
from tasks.store.slices import commit_slices, read_ahead, read_slices


@contextmanager
def behind_a_proxy(folder: Path) -> Iterator[tuple[Store, FaultyProxy]]:
    """Open a store in the folder, served by rclone, that is reached through a faulty proxy."""
    (folder / "bucket").mkdir(parents=True)
    with rclone(folder) as url, FaultyProxy(url, seed=7).serving() as proxy, used_by_s3fs(proxy.url):
        yield Store("s3://bucket/store"), proxy


@pytest.fixture
def faulty(tmp_path) -> Iterator[tuple[Store, FaultyProxy]]:
    with behind_a_proxy(tmp_path / "s3") as both:
        yield both


def read_all(artifact: Artifact) -> dict[str, bytes]:
    return {name: read_bytes(artifact, name) for name in read_files(artifact)}


# A network that fails


@pytest.mark.slow
def test_hundreds_of_commits_finds_and_reads_are_all_right(faulty):
    store, proxy = faulty
    with ThreadPoolExecutor(12) as pool:
        made = list(pool.map(lambda number: commit(store, number), range(200)))
        found = list(pool.map(lambda number: store.find(f"m/{number}"), range(200)))
        read = list(pool.map(read_all, made))
    assert found == made
    assert read == [content_of(number) for number in range(200)]
    assert sorted(store.list("m"), key=int) == [str(number) for number in range(200)]
    assert min(proxy.injected[fault] for fault in proxy.rates) > 0, proxy.injected


def test_a_growing_table_grows_over_a_faulty_network(faulty):
    store, proxy = faulty
    table = GrowingTable(store, "completions", PROVENANCE)
    names = [f"{number:02}" for number in range(12)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda name: table.append(name, completions(name + "a", name + "b")), names))
    assert list(table.parts()) == made
    wanted = dict.fromkeys([*(name + "a" for name in names), "unknown"], frozenset(range(4)))
    selection = select_slices(table.parts(), wanted)
    assert set(selection.missing) == {"unknown"}
    draft = Draft(store, Provenance(stage="sample_completions", version=1, key="b" * 64))
    artifact = commit_slices(draft, "completions", selection.slices(), {})
    assert draft.find() == artifact
    rows = pa.concat_tables(read_ahead(read_slices(store, artifact)))
    assert rows.equals(completions(*(name + "a" for name in names)))
    assert proxy.injected.total() > 0


def test_a_missing_artifact_is_missing_over_a_faulty_network(faulty):
    store, proxy = faulty
    commit(store, 0)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda number: store.find(f"m/{number}"), range(1, 101))) == {None}
    assert proxy.injected.total() > 0


def test_damage_is_told_from_a_bad_read(faulty, tmp_path):
    store, _ = faulty
    with ThreadPoolExecutor(10) as pool:
        made = list(pool.map(lambda number: commit(store, number), range(30)))
    for number in range(0, 30, 5):
        (path,) = (tmp_path / "s3").glob(f"bucket/store/m/{number}/*/model.safetensors")
        content = path.read_bytes()
        path.write_bytes(content[:100] + b"x" + content[101:])
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda number: store.find(f"m/{number}"), range(30)))
    assert found == [None if number % 5 == 0 else made[number] for number in range(30)]
    with pytest.raises(DamagedArtifactError, match="does not match the hash"):
        fetch(made[0])


def test_files_of_many_requests_arrive_whole(faulty, monkeypatch):
    store, proxy = faulty
    monkeypatch.setattr(filesystem, "CHUNK", 32_768)
    content = {"model.safetensors": os.urandom(1_000_000), "config.json": b"{}"}
    manifest = Manifest(kind="model", digest=files_digest(content), provenance=PROVENANCE)
    artifact = store.commit("m/1", content, manifest)
    proxy.rates = {"cut": 0.05, "lie": 0.05, "error": 0.05}
    assert store.find("m/1") == artifact
    assert read_all(artifact) == content
    assert (fetch(artifact) / "model.safetensors").read_bytes() == content["model.safetensors"]
    assert proxy.injected.total() > 0


def test_two_columns_of_a_large_part_arrives_over_a_faulty_network(faulty, monkeypatch):
    monkeypatch.setattr("tasks.store.parquet.CHUNK", 0)
    store, proxy = faulty
    table = GrowingTable(store, "completions", PROVENANCE)
    parts = [table.append(f"{number:02}", completions(f"{number:02}")) for number in range(30)]
    proxy.rates = {"cut": 0.01, "lie": 0.01}  # a part takes several requests, each of its four attempts all of them
    selection = select_slices(parts, {f"{number:02}": frozenset(range(4)) for number in range(30)})
    assert ([slice_.part for slice_ in selection.slices()], selection.missing) == (parts, {})
    assert proxy.injected.total() > 0


@pytest.mark.slow
def test_a_model_of_many_uploads_arrives_whole(faulty, tmp_path):
    store, proxy = faulty
    (tmp_path / "model.safetensors").write_bytes(os.urandom(1 << 20) * 220)
    files = {"model.safetensors": tmp_path / "model.safetensors"}
    proxy.rates = {"error": 0.1, "reset": 0.1, "cut": 0.05, "lie": 0.05}
    for number in range(4):
        artifact = store.commit(f"m/{number}", files, Manifest(kind="model", digest="1", provenance=PROVENANCE))
        assert store.find(f"m/{number}") == artifact
    assert proxy.injected.total() > 0


# A server that refuses


@pytest.fixture
def few_attempts(monkeypatch):
    """Let botocore ask once: what it waits between five attempts proves nothing more."""
    monkeypatch.setitem(
        filesystem.S3_OPTIONS["config_kwargs"], "retries", {"total_max_attempts": 1, "mode": "standard"}
    )
    filesystem._s3.cache_clear()


def test_a_server_that_only_fails_is_an_error_and_not_a_miss(few_attempts, faulty):
    store, proxy = faulty
    commit(store, 0)
    proxy.rates = {"error": 1.0}
    for use in (lambda: store.find("m/0"), lambda: store.list("m"), lambda: store.delete("m/0")):
        with pytest.raises(StoreError, match=r"s3://bucket/store/m.* cannot be .*check .*AWS_ENDPOINT_URL"):
            use()
    with pytest.raises(StoreError, match="cannot be written"):
        commit(store, 1)
    proxy.rates = {}
    assert store.find("m/0") is not None
    assert store.find("m/1") is None
    assert commit(store, 1) == store.find("m/1")


@pytest.mark.parametrize(
    ("options", "changes"),
    [(("--read-only",), {}), ((), {"password": "another-password"})],
    ids=["read-only", "other key"],
)
def test_a_store_that_closes_in_the_middle(few_attempts, tmp_path, options, changes):
    (tmp_path / "bucket").mkdir()
    with rclone(tmp_path) as url, used_by_s3fs(url):
        store, address = open_store("s3://bucket/store"), url.removeprefix("http://")
        first = commit(store, 0)
    with used_by_s3fs(url):
        with rclone(tmp_path, *options, address=address, **changes):
            with pytest.raises(StoreError, match=r"cannot be written .*check the bucket .*AWS_SECRET_ACCESS_KEY"):
                commit(store, 1)
            with pytest.raises(ValueError, match="cannot be written"):
                open_store("s3://bucket/store")
        with rclone(tmp_path, address=address):
            assert store.find("m/1") is None
            assert list((tmp_path / "bucket" / "store").glob("m/1/**/*.*")) == []
            assert commit(store, 1) == store.find("m/1")
            assert store.find("m/0") == first


def test_expired_credentials_are_not_taken_for_a_missing_artifact(tmp_path):
    (tmp_path / "bucket").mkdir()
    with rclone(tmp_path) as url, used_by_s3fs(url):
        commit(Store("s3://bucket/store"), 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_SECRET_ACCESS_KEY", "expired")
            with pytest.raises(StoreError, match=r"cannot be read \(PermissionError.*AWS_SECRET_ACCESS_KEY"):
                Store("s3://bucket/store").find("m/0")


# Look-ups that go on at once


def test_a_store_s_file_system_is_opened_alike_everywhere(faulty):
    store, _ = faulty
    assert open_fs(store.uri)[0] is store.fs
