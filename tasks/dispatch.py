"""Runs of deployments: how a pipeline asks a pool of GPU workers for a stage, and waits for it.

Only one run at a time works on a stage's output, or on a shard of a table: a pipeline that wants what another one, or
its own killed predecessor, has asked for already waits for that run. Whatever a run did, the store says so.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

import httpx
from prefect import get_client, runtime
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.states import Cancelling

from tasks.progress import log

GPU_LIMIT = "rs-dpo-gpu"
"""Global concurrency limit of Prefect's server that a stage holds while it computes: a slot a GPU."""
OUTAGE_SECONDS = 600.0
"""How long Prefect's server may be gone while a pipeline waits."""
WAITING_SECONDS = 60.0
"""After so long without a worker the log says so."""


class Order(NamedTuple):
    """A stage's output, wanted from a deployment."""

    deployment: str
    """`flow/deployment`."""
    parameters: dict[str, Any]
    key: str
    """Stage key of the output."""
    lock: str
    """What the run works on: the stage key, or a table that several stages' outputs are cut from."""


class DeploymentRunError(RuntimeError):
    """A deployment's run ended without its output, but may pass next time: it crashed, or another pipeline ended it."""


def under_way(lock: str) -> list[FlowRun]:
    """Return the runs that work on something, oldest first."""
    return [run for run in _runs_on(lock) if not _ended(run)]


def start(order: Order, shard: str = "") -> FlowRun:
    """Start a run, or return the one that another pipeline has started for the same at the same time.

    The idempotency key names the run before, so that a run that failed is not returned again.

    Args:
        order: What to run.
        shard: Names the part of the lock that this run works on; runs on other shards do not count as being before it.
    """
    mine = [run for run in _runs_on(order.lock) if f"shard:{shard}" in run.tags]
    before = mine[-1].id if mine else "first"
    run: Any = run_deployment(
        order.deployment,
        parameters=order.parameters,
        timeout=0,
        tags=[f"work:{order.lock}", f"shard:{shard}", f"key:{order.key}", f"parent:{runtime.flow_run.id}"],
        idempotency_key=f"{order.lock}:{shard}:{before}",
    )
    assert isinstance(run, FlowRun)  # not a coroutine, since this is no coroutine
    return run


def endings(runs: Iterable[FlowRun], poll_seconds: float) -> Iterator[FlowRun]:
    """Yield each run when it has ended, however it ended.

    Raises:
        DeploymentRunError: A run was deleted, or Prefect's server was gone for longer than `OUTAGE_SECONDS`.
    """
    waiting, seen, started = {run.id for run in runs}, time.monotonic(), time.monotonic()
    hinted = False
    with get_client(sync_client=True) as client:
        while waiting:
            try:
                found = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(waiting))))
                seen = time.monotonic()
            except httpx.TransportError as error:
                if time.monotonic() - seen > OUTAGE_SECONDS:
                    raise DeploymentRunError(f"Prefect's server is gone for {OUTAGE_SECONDS:.0f} s: {error}") from error
                continue
            if gone := waiting - {run.id for run in found}:
                raise DeploymentRunError(f"flow run {min(map(str, gone))} was deleted while this one waited for it")
            for run in filter(_ended, found):
                waiting.discard(run.id)
                yield run
            hinted = hinted or _hint(found, started)
            time.sleep(poll_seconds if waiting else 0)


def check_ended_well(run: FlowRun, committed: bool) -> None:
    """Raise where a run did not complete, or left nothing in the store.

    Raises:
        ValueError: It failed, after its own retries: the same input would fail the same way; or a person cancelled it.
        DeploymentRunError: It crashed, or was cancelled with the other pipeline that had started it.
    """
    assert run.state is not None
    what = f"flow run {run.name!r} ({run.id}) {str(run.state.name).lower()}: {run.state.message or 'no message'}"
    if run.state.is_failed() or (run.state.is_cancelled() and f"parent:{runtime.flow_run.id}" in run.tags):
        raise ValueError(f"{what}; its log is in Prefect's UI")
    if not run.state.is_completed() or not committed:
        raise DeploymentRunError(f"{what}; {'its output is' if committed else 'no output is'} in the store")


def cancel_children(flow_run_id: UUID) -> None:
    """Cancel every run that a pipeline has started and that has not ended."""
    with get_client(sync_client=True) as client:
        tags = FlowRunFilterTags(all_=[f"parent:{flow_run_id}"])
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=tags)):
            if not _ended(run):
                client.set_flow_run_state(run.id, Cancelling(message="its pipeline was cancelled"))


def find_deployment(name: str) -> bool:
    """Tell whether the server has a deployment.

    Raises:
        ValueError: The server cannot be reached.
    """
    from prefect.exceptions import ObjectNotFound

    try:
        with get_client(sync_client=True) as client:
            client.read_deployment_by_name(name)
    except ObjectNotFound:
        return False
    except httpx.TransportError as error:
        raise ValueError(f"Prefect's server cannot be reached ({error}): check PREFECT_API_URL") from error
    return True


def _runs_on(lock: str) -> list[FlowRun]:
    """Return the latest runs on a lock, in the order of their creation."""
    with get_client(sync_client=True) as client:
        return _read_all(client, FlowRunFilter(tags=FlowRunFilterTags(all_=[f"work:{lock}"])))


def _read_all(client: SyncPrefectClient, which: FlowRunFilter) -> list[FlowRun]:
    newest_first = client.read_flow_runs(flow_run_filter=which, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200)
    return newest_first[::-1]


def _ended(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


def _hint(runs: list[FlowRun], started: float) -> bool:
    """Say once that no worker has taken up a run."""
    late = [run for run in runs if run.state is not None and (run.state.is_scheduled() or run.state.is_pending())]
    if not late or time.monotonic() - started < WAITING_SECONDS:
        return False
    log(f"{len(late)} runs wait for a worker of the pool {late[0].work_pool_name}: is one started, and is it free?")
    return True
