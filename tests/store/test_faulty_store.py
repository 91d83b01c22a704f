"""The store behind a network and a server that fail, on a full disk, and with what a stranger left in it."""

import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from faulty_proxy import FaultyProxy
from s3_servers import rclone, used_by_s3fs

from tasks.store import filesystem
from tasks.store.artifacts import Artifact, DamagedArtifactError, Manifest, Provenance, files_digest
from tasks.store.copies import fetch
from tasks.store.cover import select_slices
from tasks.store.drafts import Draft
from tasks.store.filesystem import StoreError, open_fs
from tasks.store.folders import Store, open_store, read_bytes, read_files, read_manifest
from tasks.store.growing import GrowingTable, commit_slices, read_ahead, read_slices
from tasks.store.schemas import SCHEMAS

PROVENANCE = Provenance(stage="train_sft", version=1, key="a" * 64)


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


def content_of(number: int) -> dict[str, bytes]:
    return {"config.json": b'{"number": %d}' % number, "model.safetensors": b"%05d" % number * 4_000}


def commit(store: Store, number: int, folder: str = "m") -> Artifact:
    files = content_of(number)
    manifest = Manifest(kind="model", digest=files_digest(files), rows=number, provenance=PROVENANCE)
    return store.commit(f"{folder}/{number}", files, manifest)


def read_all(artifact: Artifact) -> dict[str, bytes]:
    return {name: read_bytes(artifact, name) for name in read_files(artifact)}


def completions(*prompt_ids: str) -> pa.Table:
    rows = [
        {
            "prompt_id": prompt_id,
            "completion_id": i,
            "completion": f"answer {i} to {prompt_id}",
            "token_ids": list(range(200)),
            "num_tokens": 200,
            "finish_reason": "stop",
        }
        for prompt_id in prompt_ids
        for i in range(4)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["completions"])


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


# A disk that is full


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


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


# What a stranger left


@pytest.mark.parametrize("digest", ["../../outside", "/outside", "", ".", "a b", "a\n"])
def test_a_digest_names_no_folder_outside_of_the_cache(digest, tmp_path):
    store = Store(str(tmp_path))
    with pytest.raises(ValueError, match="digest"):
        Manifest(kind="model", digest=digest, provenance=PROVENANCE)
    forge(store, commit(store, 1), digest=digest)
    assert store.find("m/1") is None


@pytest.mark.parametrize(
    "paths",
    [
        {"config.json": "other/config.json"},  # beside the folder that fetch returns
        {"config.json": "evil.json"},
        {"config.json": "config.json"},
        {"config.json": "../2/config.json"},
        {"config.json": "%2e%2e/config.json"},
        {"config.json": "a/b/config.json", "model.safetensors": "a/b/model.safetensors"},
    ],
)
def test_files_that_lie_elsewhere_make_no_artifact(paths, tmp_path):
    store = Store(str(tmp_path))
    artifact = commit(store, 1)
    files = read_manifest(artifact.uri).files
    forge(
        store,
        artifact,
        files=files | {name: files[name].model_copy(update={"path": path}) for name, path in paths.items()},
    )
    assert store.find("m/1") is None
    with pytest.raises(DamagedArtifactError):
        fetch(artifact)


@pytest.mark.parametrize("part", ["../other/m/1", "/m/1", "s3://other/m/1", "m/%2e%2e/1"])
def test_parts_are_of_this_store(part, tmp_path):
    store = Store(str(tmp_path / "store"))
    commit(Store(str(tmp_path / "other")), 1)
    listing = b'[{"part": "%s", "digest": "1", "rows": 1, "prompt_ids": null}]' % part.encode()
    artifact = store.commit(
        "s/1", {"slices.json": listing}, Manifest(kind="completions", digest="1", provenance=PROVENANCE)
    )
    with pytest.raises(ValueError, match="no path within a store"):
        read_slices(store, artifact)
    with pytest.raises(ValueError, match="no path within a store"):
        store.folder_of(Artifact(kind="model", uri=f"{store.uri}/{part}", digest="1"))
    forge(store, artifact, parts={part: "1"})
    assert store.find("s/1") is None


def test_links_in_a_store_lead_no_write_and_no_deletion_outside(tmp_path):
    store, outside = Store(str(tmp_path / "store")), tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("mine")
    folder = Path(store.root) / "m" / "1" / files_digest(content_of(1))[:16]
    folder.mkdir(parents=True)
    (folder / "config.json").symlink_to(outside / "config.json")
    (folder.parent / "manifest.json").symlink_to(outside / "config.json")
    assert commit(store, 1) == store.find("m/1")
    (folder / "link").symlink_to(outside)
    store.delete("m/1")
    (Path(store.root) / "m" / "2").symlink_to(outside)
    store.delete("m/2")
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"config.json": "mine"}
    assert store.list("m") == []


def forge(store: Store, artifact: Artifact, **changes: object) -> None:
    """Write the manifest of an artifact anew, changed and sealed."""
    forged = Manifest.model_construct(**{**dict(read_manifest(artifact.uri)), **changes}).sealed()
    store.fs.pipe_file(store.path(f"{store.folder_of(artifact)}/manifest.json"), forged.model_dump_json().encode())


# Look-ups that go on at once


def test_things_are_done_in_parallel_and_given_in_order():
    meeting = threading.Barrier(4)  # breaks where fewer than four are under way

    def wait_and_double(number: int) -> int:
        meeting.wait(timeout=30)
        return number * 2

    assert list(filesystem.in_parallel(wait_and_double, range(12), 4)) == [number * 2 for number in range(12)]


def test_no_more_is_done_than_was_asked_for():
    started = []
    results = filesystem.in_parallel(started.append, range(100), 3)
    next(results)
    results.close()
    assert len(started) == 3


def test_nothing_is_read_where_nothing_is_missing(tmp_path):
    table = GrowingTable(Store(str(tmp_path)), "completions", PROVENANCE)
    parts = [table.append(name, completions(name)) for name in "ab"]

    def unreadable() -> Iterator[Artifact]:
        raise AssertionError("a part was looked up")
        yield parts[0]

    assert select_slices(unreadable(), {}).slices() == []


def test_a_store_s_file_system_is_opened_alike_everywhere(faulty):
    store, _ = faulty
    assert open_fs(store.uri)[0] is store.fs
