"""Fixtures: a real S3 server, a fresh store a test, Prefect's test server, the shared test data."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

# Libraries read these when they are imported, so they are set before any test module is.
os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1")
if "PYTEST_XDIST_WORKER" in os.environ:  # two processes that compute on two threads each are five times slower
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
from s3_servers import moto, rclone, used_by_s3fs

from tasks.store.filesystem import open_fs
from tasks.store.folders import Store

hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")


@pytest.fixture(scope="session", autouse=True)
def local_cache(tmp_path_factory) -> Iterator[Path]:
    """Keep every local copy away from ~/.cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSDPO_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[str]:
    """Serve S3 with rclone on a free port, and point the AWS variables at it; return its URL."""
    with rclone(tmp_path_factory.mktemp("s3")) as url, used_by_s3fs(url):
        yield url


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """Serve S3 with moto, the second implementation; return its URL."""
    with moto() as url:
        yield url


def new_store_in_s3() -> str:
    """Return a store in a bucket of its own."""
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    open_fs(f"s3://{bucket}")[0].mkdir(bucket)
    return f"s3://{bucket}/some/prefix"


@pytest.fixture
def s3_uri(s3_server) -> str:
    """Return a store in a bucket of this test's own."""
    return new_store_in_s3()


@pytest.fixture(params=["file", "s3"])
def store_uri(request, tmp_path) -> Iterator[str]:
    """Return a fresh store, once in a local folder and once in S3; `moto` where a test asks for it."""
    if request.param == "moto":
        with used_by_s3fs(request.getfixturevalue("moto_server")):
            yield new_store_in_s3()
    else:
        yield request.getfixturevalue("s3_uri") if request.param == "s3" else (tmp_path / "store").as_uri()


@pytest.fixture
def store(store_uri) -> Store:
    """Open the fresh store."""
    return Store(store_uri)


@pytest.fixture
def damage() -> Callable[[str, str], None]:
    """Return a function that damages the file at a URI: flip (a bit in its middle), truncate or delete."""

    def apply(uri: str, how: str) -> None:
        fs, path = open_fs(uri)
        data, middle = fs.cat_file(path), fs.size(path) // 2
        if how == "delete":
            fs.rm_file(path)
            return
        rest = {"flip": bytes([data[middle] ^ 1]) + data[middle + 1 :], "truncate": b""}[how]
        fs.pipe_file(path, data[:middle] + rest)
        if uri.startswith("file://"):  # a clock tick later, as damage that comes by itself would be
            os.utime(path, (time.time() + 1, time.time() + 1))

    return apply


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Keep tiny models on one thread: two that wait for each other are many times slower on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def prefect_harness() -> Iterator[None]:
    """Run Prefect's server over a temporary database, which takes ten seconds to start."""
    from prefect.settings import (
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    # Without the service that fires automations: on SQLite, Prefect 3.7.6 waits for ever where one is made while that
    # service reads them. And without heartbeats, whose thread holds up the end of every flow for a second.
    with (
        temporary_settings({PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED: False}),
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real data that some tests need."""
    if not os.environ.get("RSDPO_TEST_DATA"):
        pytest.skip("RSDPO_TEST_DATA is unset: it names the folder of test data")
    return Path(os.environ["RSDPO_TEST_DATA"])
