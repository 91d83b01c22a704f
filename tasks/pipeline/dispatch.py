"""Runs of deployments: how a pipeline asks a pool of GPU workers for a stage, and waits for it.

Only one run at a time works on a stage's output, or on a shard of a table: a pipeline that wants what another one, or
its own killed predecessor, has asked for already waits for that run. Whatever a run did, the store says so.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

import httpx
from prefect import get_client, runtime
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, TerminationSignal
from prefect.states import Cancelling

from tasks.config.errors import ConfigurationError
from tasks.pipeline.progress import log

GPU_LIMIT = "rs-dpo-gpu"
"""Global concurrency limit of Prefect's server that a stage holds while it computes: a slot for each of its GPUs."""
OUTAGE_SECONDS = 600.0
"""How long Prefect's server may be gone while a pipeline waits."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two looks at the runs that a pipeline waits for."""
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


class Pool(NamedTuple):
    """A work pool."""

    name: str
    gpus: int | None
    """That each worker has, or each job gets: `infra.apply --gpus-per-worker`. None: a pool that does not say."""


class DeploymentRunError(RuntimeError):
    """A deployment's run ended without its output, but may pass next time: it crashed, or another pipeline ended it."""


class DeploymentFailedError(RuntimeError):
    """A deployment's run failed, after its own retries, or a person cancelled it: asking again would be in vain."""


def under_way(lock: str) -> list[FlowRun]:
    """Return runs that work on something, the latest first, at most 200.

    Raises:
        httpx.HTTPError: Prefect's server is gone.
    """
    return _runs(f"work:{lock}", alive=True)


def start(order: Order, shard: str = "") -> FlowRun:
    """Start a run, or return the run that is under way or that another pipeline starts at the same moment.

    The idempotency key names the run before, so that a run that has ended is not returned again.

    Args:
        order: What to run.
        shard: Names the part of the lock that this run works on; runs on other shards do not count.

    Raises:
        httpx.HTTPError: Prefect's server is gone.
    """
    latest = _runs(f"work:{order.lock}", f"shard:{shard}")[:1]
    if latest and not _ended(latest[0]):
        return latest[0]
    run: Any = run_deployment(
        order.deployment,
        parameters=order.parameters,
        timeout=0,
        tags=[f"work:{order.lock}", f"shard:{shard}", f"key:{order.key}", f"parent:{runtime.flow_run.id}"],
        idempotency_key=f"{order.lock}:{shard}:{latest[0].id if latest else 'first'}",
    )
    assert isinstance(run, FlowRun)  # not a coroutine, since this is no coroutine
    return run


def endings(runs: Iterable[FlowRun]) -> Iterator[FlowRun]:
    """Yield each run when it has ended, however it ended.

    Args:
        runs: At most 200. Looks at them follow one another after 2% of the time waited so far.

    Raises:
        DeploymentRunError: A run was deleted, or Prefect's server was gone for longer than `OUTAGE_SECONDS`.
    """
    try:
        with get_client(sync_client=True) as client:
            yield from _endings(client, {run.id for run in runs})
    except TerminationSignal:  # sooner than the hook of the flow, which waits for this process to end
        _cancel_children_if_cancelled()
        raise


def _endings(client: SyncPrefectClient, waiting: set[UUID]) -> Iterator[FlowRun]:
    seen = began = time.monotonic()
    hinted = False
    while waiting:
        found = _look(client, waiting)
        if found is None and time.monotonic() - seen > OUTAGE_SECONDS:
            raise DeploymentRunError(f"Prefect's server is gone for {OUTAGE_SECONDS:.0f} s: run again once it is back")
        if found is not None:
            seen = time.monotonic()
            yield from (run for run in found if _ended(run))
            waiting -= {run.id for run in found if _ended(run)}
            hinted = hinted or (seen - began > WAITING_SECONDS and _hint(found))
        time.sleep(min(max((time.monotonic() - began) / 50, SHORTEST_PAUSE), LONGEST_PAUSE) if waiting else 0)


def check_ended_well(run: FlowRun, committed: bool) -> None:
    """Raise where a run did not complete, or left nothing in the store.

    Raises:
        DeploymentFailedError: It failed, after its own retries: the same input would fail the same way; or a person
            cancelled it.
        DeploymentRunError: It crashed, or was cancelled with the other pipeline that had started it.
    """
    assert run.state is not None
    what = f"flow run {run.name!r} ({run.id}) {str(run.state.name).lower()}: {run.state.message or 'no message'}"
    if run.state.is_failed() or (run.state.is_cancelled() and f"parent:{runtime.flow_run.id}" in run.tags):
        raise DeploymentFailedError(f"{what}; its log is in Prefect's UI")
    if not run.state.is_completed() or not committed:
        raise DeploymentRunError(f"{what}; {'its output is' if committed else 'no output is'} in the store")


def cancel_children(flow_run_id: UUID) -> None:
    """Cancel every run that a pipeline has started and that has not ended.

    Raises:
        httpx.HTTPError: Prefect's server is gone.
    """
    with get_client(sync_client=True) as client:
        for run in _runs(f"parent:{flow_run_id}", alive=True):
            client.set_flow_run_state(run.id, Cancelling(message="its pipeline was cancelled"))


def _cancel_children_if_cancelled() -> None:
    with contextlib.suppress(httpx.HTTPError), get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(runtime.flow_run.id)).state
        if state is not None and state.is_cancelling():
            cancel_children(UUID(runtime.flow_run.id))


def find_pool(name: str) -> Pool | None:
    """Return the pool that a deployment's runs go to; None where the server has no such deployment.

    Raises:
        ConfigurationError: The server cannot be reached, or refuses us.
    """
    try:
        with get_client(sync_client=True) as client:
            return _read_pool(client, name)
    except ObjectNotFound:
        return None
    except httpx.HTTPError as error:
        message = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"Prefect's server does not answer ({message}): check PREFECT_API_URL and PREFECT_API_AUTH_STRING"
        ) from error


def _read_pool(client: SyncPrefectClient, name: str) -> Pool:
    """Return the pool of a deployment, which need not have one, and the GPUs that its workers have."""
    deployment = client.read_deployment_by_name(name)
    if deployment.work_pool_name is None:
        return Pool("", None)
    template = client.read_work_pool(deployment.work_pool_name).base_job_template
    variables = template.get("variables", {}).get("properties", {})
    gpus = (deployment.job_variables or {}).get("gpus", variables.get("gpus", {}).get("default"))
    return Pool(deployment.work_pool_name, gpus)


def _runs(*tags: str, alive: bool = False) -> list[FlowRun]:
    """Return the runs with all of some tags, by the time when they were expected to start, the latest first."""
    ended = FlowRunFilterState(type=FlowRunFilterStateType(not_any_=list(TERMINAL_STATES)))
    which = FlowRunFilter(tags=FlowRunFilterTags(all_=list(tags)), state=ended if alive else None)
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_run_filter=which, sort=FlowRunSort.EXPECTED_START_TIME_DESC)


def _look(client: SyncPrefectClient, ids: set[UUID]) -> list[FlowRun] | None:
    """Return runs as they are now; None while the server, or its database, does not answer.

    Raises:
        DeploymentRunError: A run was deleted.
    """
    try:
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(ids))))
    except httpx.HTTPError as error:
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
            raise
        return None
    if gone := ids - {run.id for run in found}:
        raise DeploymentRunError(f"flow run {min(map(str, gone))} was deleted while this one waited for it: run again")
    return found


def _ended(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


def _hint(runs: list[FlowRun]) -> bool:
    """Say that no worker has taken up a run; tell whether that was so."""
    late = [run for run in runs if run.state is not None and (run.state.is_scheduled() or run.state.is_pending())]
    if late:
        log(f"{len(late)} runs wait for a worker of the pool {late[0].work_pool_name}: is one started, and is it free?")
    return bool(late)
