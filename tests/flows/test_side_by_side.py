"""Arms side by side on a pool: a real server, two real workers, every GPU stage a run of its own."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import flow, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL
from runs import ROOT, on_small_world

from infra.apply import job_template
from tasks.config.compute import GPU_STAGES
from tasks.examples.world import write_world
from tasks.pipeline.dispatch import GPU_LIMIT
from tasks.pipeline.jobs import die_with_parent

pytestmark = pytest.mark.slow

POOL = "test-side-by-side"
WORKERS = 2
COMPUTE = {f"compute.{stage}": f"{stage.replace('_', '-')}/{POOL}" for stage in GPU_STAGES}
ARMS = {"threshold": {}, "beta": {"dpo.beta": 0.2}, "best vs worst": {"pairs.strategy": "best_vs_worst"}}


@pytest.fixture(scope="module")
def workers(prefect_harness: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Deploy every GPU stage, and start two workers, each of which computes a stage at a time."""
    with get_client(sync_client=True) as client:
        pool = WorkPoolCreate(name=POOL, type="process", base_job_template=job_template("process", 1))
        client.create_work_pool(pool)
        asyncio.run(slots())
    for stage in GPU_STAGES:
        source = flow.from_source(source=str(ROOT), entrypoint=f"flows/stages.py:{stage}")
        source.deploy(name=POOL, work_pool_name=POOL, print_next_steps=False)
    bin_ = Path(sys.executable).parent
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "PREFECT_WORKER_QUERY_SECONDS": "0.5"}
    environment |= {"PYTHONPATH": str(ROOT), "PATH": f"{bin_}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    folder = tmp_path_factory.mktemp("workers")
    processes = [start(number, environment, folder) for number in range(WORKERS)]
    yield environment
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def slots() -> None:
    async with get_client() as client:
        await client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, WORKERS)


def start(number: int, environment: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "prefect",
        "worker",
        "start",
        "--pool",
        POOL,
        "--limit",
        "1",
        "--name",
        str(number),
    ]
    with (folder / f"{number}.log").open("wb") as log:
        return subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, preexec_fn=die_with_parent, start_new_session=True
        )


def compare(folder: Path, environment: dict[str, str], **fields: Any) -> dict[str, Any]:
    """Run a comparison; return its last line of JSON."""
    settings = on_small_world(folder / "world", folder / "store", dpo__snapshots=1)
    shared = {name.replace("__", "."): str(v) if isinstance(v, Path) else v for name, v in settings.items()}
    config = {"base": str(ROOT / "configs/quickstart.yaml"), "set": {**shared, **COMPUTE}, "arms": ARMS, "seeds": [0]}
    (folder / "compare.yaml").write_text(yaml.safe_dump({**config, **fields}, sort_keys=False))
    command = [sys.executable, "-m", "flows.compare", str(folder / "compare.yaml"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def stage_runs() -> list[FlowRun]:
    """Return the runs that workers have computed stages in."""
    with get_client(sync_client=True) as client:
        return [run for run in client.read_flow_runs() if run.work_pool_name == POOL]


def test_arms_go_side_by_side_and_no_stage_is_computed_twice(workers, tmp_path):
    write_world(tmp_path / "world", seed=0, scale=0.1)
    found = compare(tmp_path, workers, at_once=2)
    assert [row[0] for row in found["parts"][0]["rows"]] == ["sft", *ARMS]
    runs = stage_runs()
    asked = Counter(tag for run in runs for tag in run.tags if tag.startswith("key:"))
    assert set(asked.values()) == {1}, "one run a stage key"
    trained, once = 3, {"train_sft", "train_reward_model", "sample_completions", "score_completions"}
    counts = named(Counter(run.deployment_id for run in runs))
    assert {stage: counts[stage] for stage in once} == dict.fromkeys(once, 1)
    assert (counts["train_dpo"], counts["evaluate_policy"]) == (trained, 2 * trained)
    assert overlap(runs), "two stages at a time"
    again = compare(tmp_path, workers, at_once=1)
    assert again == found, "one after the other gives the same"
    assert len(stage_runs()) == len(runs)


def named(counts: Counter[Any]) -> dict[str, int]:
    """Return how many runs each stage had."""
    with get_client(sync_client=True) as client:
        names = {id_: client.read_deployment(id_).entrypoint for id_ in counts}
    return {str(names[id_]).rpartition(":")[2]: count for id_, count in counts.items()}


def overlap(runs: list[FlowRun]) -> bool:
    """Tell whether two runs were under way at once."""
    spans = sorted((run.start_time, run.end_time) for run in runs if run.start_time and run.end_time)
    return any(later < end for (_, end), (later, _) in itertools.pairwise(spans))
