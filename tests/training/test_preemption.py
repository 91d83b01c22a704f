"""SIGTERM stops a training, and another worker goes on from its checkpoint."""

import signal

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.states import StateType
from trainings import STEPS, STOP, losses, steps_in, train

from tasks.store.artifacts import Artifact
from tasks.store.folders import Store

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("stage", "store_uri"), [("sft", "file"), ("reward_model", "file"), ("dpo", "s3")], indirect=["store_uri"]
)
def test_sigterm_saves_and_another_worker_goes_on(stage, store, preempted, another_worker, undisturbed):
    preempted(stage, store, STOP)
    assert steps_in(store) == [f"step-{STOP}"]
    assert store.find(f"{stage}/k") is None
    model = another_worker(stage, store)
    assert losses(model) == losses(undisturbed(stage))
    assert [step for step, _ in losses(model)] == list(range(1, STEPS + 1))
    assert model.digest == undisturbed(stage).digest
    assert steps_in(store) == []


def test_sigterm_in_the_last_step(tmp_path, preempted, undisturbed, start):
    store = Store(str(tmp_path))
    preempted("sft", store, STEPS)
    assert store.find("sft/k") is None
    model = train("sft", store, start)
    assert losses(model) == losses(undisturbed("sft"))
    assert model.digest == undisturbed("sft").digest


def test_within_a_flow_the_run_ends_as_prefect_ends_it(tmp_path, preempted, prefect_harness):
    store = Store(str(tmp_path))

    @flow(name="preempted")
    def trains(stage: str, where: str, start: dict) -> None:
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        train(stage, Store(where), Artifact(**start))

    preempted("sft", store, STOP, lambda stage, store, start: trains(stage, store.uri, start.model_dump()))
    assert steps_in(store) == [f"step-{STOP}"]
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["preempted"])))
    assert [run.state.type for run in runs if run.state] == [StateType.CRASHED]
