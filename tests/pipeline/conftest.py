"""Fixtures that the tests of pipeline share."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dispatched import Behaviour, train_sft
from dispatching import COMPUTE, POOL, SOURCE
from doubles import Double
from prefect import flow, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL
from runs import SUPPORT

from infra.apply import job_template
from tasks.pipeline.jobs import die_with_parent
from tasks.pipeline.site import Site, open_site
from tasks.store.artifacts import Artifact


@pytest.fixture
def double(monkeypatch) -> Double:
    monkeypatch.setattr("tasks.pipeline.stage.exponential_backoff", lambda _: lambda retries: [0.0] * retries)
    return Double(retries=2)


@pytest.fixture
def states(prefect_harness, caplog) -> Callable[[Callable[[], Any]], list[str]]:
    """Return a function that runs another in a flow, and returns the states in which Prefect says its tasks ended."""

    def run(body: Callable[[], Any]) -> list[str]:
        @flow(name="test")
        def test() -> None:
            body()

        caplog.clear()
        test()
        messages = [record.getMessage() for record in caplog.records if record.name == "prefect.task_runs"]
        return [found[1] for message in messages if (found := re.match(r"Finished in state (\w+)", message))]

    return run


@pytest.fixture(scope="module")
def worker(prefect_harness, tmp_path_factory) -> Iterator[None]:
    """Deploy the stage of tests/dispatched.py, and start a worker for it."""
    with get_client(sync_client=True) as client:
        template = job_template("process", 0)
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
    for name in ("train_sft_on_worker", "sample_on_worker"):
        source = flow.from_source(source=str(SUPPORT), entrypoint=f"dispatched.py:{name}")
        source.deploy(name="test", work_pool_name=POOL, print_next_steps=False)
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value(), "PREFECT_WORKER_QUERY_SECONDS": "0.5"}
    environment |= {"CUDA_VISIBLE_DEVICES": "0,1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    log = tmp_path_factory.mktemp("worker") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL],
            env=environment,
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent,
            start_new_session=True,
        )
    yield
    os.killpg(process.pid, signal.SIGKILL)  # with its flow runs, which it would wait for
    process.wait()


@pytest.fixture
def site(tmp_path) -> Site:
    return open_site(str(tmp_path / "store"), COMPUTE)


@pytest.fixture
def compute(worker, monkeypatch) -> Callable[..., Artifact]:
    """Return a function that calls the stage within a flow."""
    monkeypatch.setattr("tasks.pipeline.stage.CRASH_SECONDS", 0.0)

    def run(site: Site, **behaviour: Any) -> Artifact:
        return flow(lambda: train_sft(site, SOURCE, Behaviour(**behaviour)), name="pipeline")()

    return run
