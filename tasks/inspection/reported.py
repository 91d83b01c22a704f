"""How far a run is, as Prefect's server tells: the state of its flow run, and the progress of its stage under way."""

from typing import NamedTuple
from uuid import UUID

import httpx
from prefect.client.base import ServerType, determine_server_type
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    FlowRunFilter,
    FlowRunFilterTags,
)
from prefect.client.schemas.sorting import ArtifactSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.store.runs import Run

ANSWER_SECONDS = 10.0
"""How long the server may take to answer."""
NEWEST = 20
"""Artifacts that are looked through: the stage under way updates the newest."""
AS_STORED = "progress is as the store has it"


class Reported(NamedTuple):
    """What Prefect's server says of a run."""

    remark: str = ""
    """Why it says nothing."""
    ended: str = ""
    """How the flow run ended: `failed`, `crashed`, ...; empty while it goes on."""
    progress: str = ""
    """Of the stage under way; of several workers one after another."""


def ask_server(run: Run) -> Reported:
    """Ask the server that Prefect is configured with, if any, for a run that has not finished."""
    if run.status == "finished":
        return Reported()
    if determine_server_type() not in (ServerType.SERVER, ServerType.CLOUD):
        return Reported(f"no Prefect server: {AS_STORED}")
    server = f"Prefect's server at {PREFECT_API_URL.value()}"
    if not run.flow_run_id:
        return Reported(f"the run was no flow run of Prefect's: {AS_STORED}")
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": ANSWER_SECONDS}, sync_client=True) as client,
        ):
            return _ask(client, UUID(run.flow_run_id), run.stages[-1].partition("/")[0] if run.stages else "")
    except ObjectNotFound:
        return Reported(f"{server} does not know the run, which used another one: {AS_STORED}")
    except (RuntimeError, ValueError, httpx.HTTPError) as error:  # ValueError: what answers is no Prefect
        return Reported(f"{server} does not answer ({type(error.__cause__ or error).__name__}): {AS_STORED}")


def _ask(client: SyncPrefectClient, flow_run_id: UUID, stage: str) -> Reported:
    state = client.read_flow_run(flow_run_id).state
    ended = state.type.value.lower() if state is not None and state.is_final() else ""
    return Reported(ended=ended, progress="" if ended else "; ".join(_progress(client, flow_run_id, stage)))


def _progress(client: SyncPrefectClient, flow_run_id: UUID, stage: str) -> list[str]:
    """Return the newest progress of a stage, in the run itself and in the runs that it has started on workers."""
    tags = FlowRunFilterTags(all_=[f"parent:{flow_run_id}"])
    runs = [flow_run_id, *(child.id for child in client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=tags)))]
    wanted = ArtifactFilter(type=ArtifactFilterType(any_=["progress"]), flow_run_id=ArtifactFilterFlowRunId(any_=runs))
    found = client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.UPDATED_DESC, limit=NEWEST)
    newest: dict[UUID | None, str] = {}
    for artifact in found:
        if artifact.flow_run_id in newest or artifact.task_run_id is None:
            continue
        if client.read_task_run(artifact.task_run_id).name.rpartition("-")[0] == stage:
            newest[artifact.flow_run_id] = artifact.description or f"{artifact.data}%"
    return list(newest.values())
