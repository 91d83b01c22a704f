"""Stages on a worker pool: a real server, a real worker, real flow runs."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dispatched import Behaviour, sample_completions, train_sft
from doubles import SOURCE
from prefect import flow, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL
from runs import SUPPORT

from infra.apply import apply, job_template
from tasks.config.compute import ComputeConfig
from tasks.pipeline.dispatch import DeploymentFailedError, DeploymentRunError, cancel_children, endings, start
from tasks.pipeline.jobs import die_with_parent
from tasks.pipeline.site import Site, open_site
from tasks.store.artifacts import Artifact
from tasks.store.manifests import read_bytes

COMPUTE = ComputeConfig(train_sft="train-sft/test")
POOL = "test-dispatch"


@pytest.fixture(scope="module")
def worker(prefect_harness, tmp_path_factory) -> Iterator[None]:
    """Deploy the stages of tests/support/dispatched.py, and start a worker for it."""
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


def runs_of(site: Site, **behaviour: Any) -> list[FlowRun]:
    """Return the flow runs that computed the stage for a site."""
    key = train_sft.order(site, SOURCE, Behaviour(**behaviour)).key
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[f"key:{key}"])))


def test_a_stage_is_computed_by_its_worker_and_only_once(site, compute):
    made = compute(site, sleeps=0.001)
    assert read_bytes(made, "pid.txt") != str(os.getpid()).encode()
    assert read_bytes(made, "gpus.txt") == b"''", "runs on a pool without GPUs see none, though their worker does"
    assert compute(site, sleeps=0.001) == made
    assert [run.state.name for run in runs_of(site, sleeps=0.001)] == ["Completed"]
    assert site.computed == {"train_sft": 1}
    site.store.delete(site.store.folder_of(made))
    again = compute(site, sleeps=0.001)
    assert again.digest != made.digest
    assert len(runs_of(site, sleeps=0.001)) == 2


def test_a_failure_keeps_its_message_and_is_not_repeated(site, compute):
    with pytest.raises(DeploymentFailedError, match="tau = -1 must be positive"):
        compute(site, fails="tau = -1 must be positive")
    assert len(runs_of(site, fails="tau = -1 must be positive")) == 1
    assert site.store.list("train_sft") == []


def test_a_killed_process_is_replaced(site, compute, tmp_path):
    marker = str(tmp_path / "died")
    compute(site, dies_once=marker)
    assert [run.state.name for run in runs_of(site, dies_once=marker)].count("Crashed") == 1
    assert len(runs_of(site, dies_once=marker)) == 2


PIPELINE = """
import sys
from dispatched import Behaviour, sample_completions, train_sft
from prefect import flow
from tasks.store.artifacts import Artifact
from tasks.config.compute import ComputeConfig
from tasks.pipeline.site import Site
from tasks.store.folders import Store

site = Site(Store(sys.argv[1]), ComputeConfig.model_validate_json(sys.argv[2]))
source = Artifact.model_validate_json(sys.argv[3])
made = flow(lambda: train_sft(site, source, Behaviour(sleeps=2)), name="pipeline")()
print(made.model_dump_json())
"""


def test_two_pipelines_at_once_share_one_run(site, worker):
    arguments = [site.store.uri, COMPUTE.model_dump_json(), SOURCE.model_dump_json()]
    environment = {
        **os.environ,
        "PREFECT_API_URL": PREFECT_API_URL.value(),
        "PYTHONPATH": str(SUPPORT),
        "PREFECT_LOGGING_LEVEL": "ERROR",
    }
    pipelines = [
        subprocess.Popen(
            [sys.executable, "-c", PIPELINE, *arguments], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=120)[0].splitlines()[-1] for process in pipelines]
    assert [process.returncode for process in pipelines] == [0, 0]
    assert json.loads(printed[0]) == json.loads(printed[1])
    assert len(runs_of(site, sleeps=2)) == 1


def test_a_pipeline_waits_for_the_run_that_a_killed_one_started(site, compute):
    orphan = flow(lambda: start(train_sft.order(site, SOURCE, Behaviour(sleeps=1))), name="killed")()
    compute(site, sleeps=1)
    assert [run.id for run in runs_of(site, sleeps=1)] == [orphan.id]


def test_two_orders_for_the_same_are_one_run(site, worker):
    order = train_sft.order(site, SOURCE, Behaviour(sleeps=1))
    ids = flow(lambda: {start(order).id, start(order).id, start(order, "a shard").id}, name="twice")()
    assert len(ids) == 2


def test_what_a_cancelled_pipeline_has_started_ends(site, worker):
    def begin() -> FlowRun:
        run = start(train_sft.order(site, SOURCE, Behaviour(sleeps=120)))
        wait_for(lambda: state_of(run) == "Running")
        return run

    run = flow(begin, name="cancelled")()
    parent = next(tag.partition(":")[2] for tag in run.tags if tag.startswith("parent:"))
    cancel_children(parent)
    assert [ended.state.name for ended in endings([run])] == ["Cancelled"]
    assert site.store.list("train_sft") == []


def state_of(run: FlowRun) -> str:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id).state.name


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_run_that_was_deleted_is_not_waited_for_for_ever(site, worker):
    run = flow(lambda: start(train_sft.order(site, SOURCE, Behaviour(sleeps=60))), name="deleted")()
    with get_client(sync_client=True) as client:
        client.delete_flow_run(run.id)
    with pytest.raises(DeploymentRunError, match="was deleted"):
        list(endings([run]))


# Shards


@pytest.fixture
def sharded(tmp_path, worker, monkeypatch) -> Callable[..., Artifact]:
    """Return a function that calls the stage that is split over two workers within a flow."""
    monkeypatch.setattr("tasks.pipeline.stage.CRASH_SECONDS", 0.0)
    asyncio.run(apply(2))
    places = dict.fromkeys(("sample_completions", "score_completions"), "sample-completions/test")
    site = open_site(str(tmp_path / "store"), ComputeConfig(**places, shards=2))

    def run(**behaviour: Any) -> Artifact:
        return flow(lambda: sample_completions(site, SOURCE, Behaviour(**behaviour)), name="pipeline")()

    run.site = site
    return run


def test_a_stage_is_split_over_workers_and_named_here(sharded):
    made = sharded()
    numbers = sharded.site.store.list("tables/numbers/t")
    assert sorted(map(int, numbers)) == list(range(SOURCE.rows))
    by_process = Counter(
        read_bytes(sharded.site.store.find(f"tables/numbers/t/{number}"), "pid.txt") for number in numbers
    )
    assert sorted(by_process.values()) == [2, 3]
    assert str(os.getpid()).encode() not in by_process
    assert made.rows == SOURCE.rows
    assert sharded() == made


def test_what_the_other_shard_has_committed_stays(sharded):
    with pytest.raises(
        DeploymentFailedError, match=r"1 of 2 shards failed, what they had committed is kept: .*4 fails"
    ):
        sharded(fails="4")
    store = sharded.site.store
    assert {"0", "1"} <= set(store.list("tables/numbers/t")), "of the shard that did not fail"
    assert sharded().rows == SOURCE.rows
