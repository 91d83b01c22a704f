"""What a Prefect server needs for RS-DPO: work pools, queues, limits, and an automation that ends lost runs.

python -m infra.apply --gpus 8 --gpus-per-worker 2 --gpu-pool kubernetes

Changes what differs and leaves the rest alone, so it may run again at any time. PREFECT_API_URL names the server.
"""

import argparse
import asyncio
import os
import sys
from datetime import timedelta
from typing import Any

import yaml
from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from infra.stack import ROOT
from tasks.config.compute import GPU_STAGES
from tasks.config.errors import ConfigurationError
from tasks.pipeline.dispatch import GPU_LIMIT
from tasks.store.folders import Store

POOLS = ROOT / "infra" / "pools"
CPU_POOL, GPU_POOL = "rs-dpo-cpu", "rs-dpo-gpu"
PIPELINES = 4
"""Flow runs at once on the CPU pool: they mostly wait, but selecting pairs takes memory."""
QUEUES = {
    CPU_POOL: {"default": 1, "scheduled": 2},  # people and events before the clock
    GPU_POOL: {"finish": 1, "default": 2},  # what is nearly done first
}
"""Priorities of the queues of each pool; 1 comes first."""
ASKED_FOR = ("rs-dpo", "quickstart", "add-prompts", "add-preferences", "serve-judge")
FLOWS = (*ASKED_FOR, *(stage.replace("_", "-") for stage in GPU_STAGES))
"""Flows that send heartbeats as often as the automations expect; other flows on the server are left alone."""
ZOMBIES, UNBORN = "RS-DPO: crash runs that send no heartbeat", "RS-DPO: crash runs that never begin"
SILENCE = timedelta(seconds=90)
"""Three heartbeats: one may be late on a busy machine."""
START = {"process": timedelta(minutes=5), "docker": timedelta(hours=1), "kubernetes": timedelta(hours=6)}
"""How long a run may stay Pending once a worker has taken it: for an image to be pulled, or a node to come."""


def check_environment() -> None:
    """Refuse to set up no server, and a store whose events prefect.yaml's trigger would not know.

    Raises:
        ConfigurationError: PREFECT_API_URL is unset, or RSDPO_STORE is written otherwise than in events.
    """
    if PREFECT_API_URL.value() is None:
        raise ConfigurationError("PREFECT_API_URL is not set: name the server that is to be set up")
    store = os.environ.get("RSDPO_STORE")
    if store is not None and Store(store).uri != store:
        raise ConfigurationError(f"RSDPO_STORE = {store!r} must be written as {Store(store).uri!r}: events name it so")


async def apply(gpus: int, gpu_pool: str = "process", gpus_per_worker: int = 1) -> None:
    """Give the server what is missing, and change what differs.

    Args:
        gpus: GPUs of all workers together, at least 1.
        gpu_pool: Type of the GPU pool: process, docker or kubernetes.
        gpus_per_worker: GPUs that one worker has to itself, or one job gets. It computes a stage at a time.

    Raises:
        ConfigurationError: The GPU pool exists with another type, or the workers cannot have as many GPUs each.
    """
    workers, rest = divmod(gpus, gpus_per_worker)
    if rest:
        raise ConfigurationError(
            f"--gpus {gpus} must be a multiple of --gpus-per-worker {gpus_per_worker}: each worker has as many"
        )
    async with get_client() as client:
        await _pool(client, CPU_POOL, "process", job_template("process", 0), PIPELINES)
        await _pool(client, GPU_POOL, gpu_pool, job_template(gpu_pool, gpus_per_worker), workers)
        for pool, queues in QUEUES.items():
            await _queues(client, pool, queues)
        await client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, gpus)
        for automation in automations(START[gpu_pool]):
            await _automation(client, automation)


def job_template(kind: str, gpus: int = 1) -> dict[str, Any]:
    """Return the base job template of a pool.

    Args:
        kind: Type of the pool: process, docker or kubernetes.
        gpus: GPUs that a worker has, or a job gets; what is asked for is held against it (`tasks.pipeline.checks`).
            With 0, runs see none, whatever their worker sees: a pipeline must not compute on a GPU without its slot.
    """
    template: dict[str, Any] = yaml.safe_load((POOLS / f"{kind}.yaml").read_text())
    template["variables"]["properties"]["gpus"]["default"] = gpus
    if not gpus:
        template["job_configuration"]["env"]["CUDA_VISIBLE_DEVICES"] = ""
    if kind == "process":
        template["variables"]["properties"]["working_dir"]["default"] = str(ROOT)
    return template


def automations(start: timedelta) -> list[AutomationCore]:
    """Return the automations that set a flow run to Crashed once its process has fallen silent, or never came.

    Args:
        start: How long a run may stay Pending.
    """
    heartbeat, states = "prefect.flow-run.heartbeat", ("Completed", "Failed", "Cancelled", "Crashed")
    running, ends = "prefect.flow-run.Running", {f"prefect.flow-run.{state}" for state in states}
    silent = f"No heartbeat for {SILENCE.seconds} seconds: the process is gone."
    late = f"Pending for {start}: its worker is gone, or cannot start it."
    return [
        _crash_unless(ZOMBIES, {heartbeat, running}, {heartbeat, *ends}, SILENCE, silent),
        _crash_unless(UNBORN, {"prefect.flow-run.Pending"}, {running, *ends}, start, late),
    ]


def _crash_unless(name: str, after: set[str], expect: set[str], within: timedelta, message: str) -> AutomationCore:
    """Return an automation that sets our flow runs to Crashed where no expected event follows an event in time."""
    return AutomationCore(
        name=name,
        description="Its machine, its worker or its process is gone.",
        trigger=EventTrigger(
            after=after,
            expect=expect,
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": ["flow"], "prefect.resource.name": list(FLOWS)}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )


async def _pool(client: PrefectClient, name: str, kind: str, template: dict[str, Any], limit: int) -> None:
    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound:
        await client.create_work_pool(
            WorkPoolCreate(name=name, type=kind, base_job_template=template, concurrency_limit=limit)
        )
        return
    if pool.type != kind:
        raise ConfigurationError(
            f"work pool {name} has the type {pool.type}, not {kind}, and a pool's type cannot change: "
            f"--gpu-pool {pool.type}, or prefect work-pool delete {name} once it is idle"
        )
    if (pool.base_job_template, pool.concurrency_limit) != (template, limit):
        await client.update_work_pool(name, WorkPoolUpdate(base_job_template=template, concurrency_limit=limit))


async def _queues(client: PrefectClient, pool: str, priorities: dict[str, int]) -> None:
    found = {queue.name: queue for queue in await client.read_work_queues(work_pool_name=pool)}
    for name in priorities.keys() - found.keys():
        found[name] = await client.create_work_queue(name, work_pool_name=pool)
    for name, priority in priorities.items():
        if found[name].priority != priority:
            await client.update_work_queue(found[name].id, priority=priority)


async def _automation(client: PrefectClient, wanted: AutomationCore) -> None:
    found = await client.read_automations_by_name(wanted.name)
    if not found:
        await client.create_automation(wanted)
    elif AutomationCore.model_validate(found[0].model_dump(exclude={"id"})) != wanted:
        await client.update_automation(found[0].id, wanted)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Give a Prefect server the pools, queues and limits of RS-DPO.")
    parser.add_argument("--gpus", type=_positive, default=1, help="GPUs of all workers together (default: 1)")
    parser.add_argument("--gpus-per-worker", type=_positive, default=1, help="of these, GPUs a worker (default: 1)")
    parser.add_argument("--gpu-pool", choices=["process", "docker", "kubernetes"], default="process")
    options = parser.parse_args()
    try:
        check_environment()
        asyncio.run(apply(options.gpus, options.gpu_pool, options.gpus_per_worker))
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
