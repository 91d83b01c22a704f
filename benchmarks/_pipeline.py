"""The deployed pipeline as `faults.py` disturbs it: started again whenever it ends early, and its processes found."""

import contextlib
from typing import Any, Literal

import httpx
import psutil
from prefect import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from flows.config_files import load_config
from infra.stack import ROOT
from tasks.store.folders import Store

PIPELINE = "rs-dpo/new-prompts"
SMALLER = (
    "data.prompts=.rsdpo/world/prompts.jsonl",
    "data.max_prompts=96",
    "data.max_evaluation_prompts=24",
    "sft.max_steps=100",
    "sft.save_steps=10",
    "reward_model.max_steps=60",
    "reward_model.save_steps=10",
    "sampling.k=8",
    "sampling.part_size=8",
    "pairs.tau=0.1",
    "pairs.truncated=keep",
    "dpo.max_steps=40",
    "dpo.save_steps=5",
    "evaluation.k=2",
)


class Pipeline:
    """The pipeline on one store, started again whenever it has ended without its result."""

    def __init__(self, store: str) -> None:
        """Start it."""
        config = load_config(str(ROOT / "configs/deployed.yaml"), [*SMALLER, f"store={store}"])
        self.parameters, self.store = config.model_dump(mode="json"), store
        self.starts = 0
        self.start()

    def start(self) -> None:
        """Start a run."""
        self.run: Any = run_deployment(PIPELINE, parameters=self.parameters, timeout=0, as_subflow=False)
        self.starts += 1

    def is_done(self) -> bool:
        """Tell whether the result is there; start again where the run ended without."""
        state = self.read(self.run).state
        if state.is_final() and not state.is_completed():
            print(f"    pipeline {state.name}, started again", flush=True)
            self.start()
        return bool(state.is_completed())

    def look(self, stage: str) -> FlowRun | Literal["done"] | None:
        """Return the run whose process computes a stage now, or `done`; None in between, or while nobody answers."""
        with contextlib.suppress(httpx.HTTPError, OSError):
            self.is_done()
            if self.has(stage):
                return "done"
            with get_client(sync_client=True) as client:
                name = FlowFilter(name=FlowFilterName(any_=[stage.replace("_", "-")]))
                runs = client.read_flow_runs(flow_filter=name)
            for run in runs:
                running = run.state is not None and run.state.is_running()
                if running and run.parameters["store"] == self.store and processes_of({str(run.id)}):
                    return run
        return None

    def has(self, stage: str) -> bool:
        """Tell whether a stage's output is there."""
        store = Store(self.store)
        return any(store.find(f"{stage}/{key}") for key in store.list(stage))

    @staticmethod
    def read(run: FlowRun) -> FlowRun:
        """Return the present state of a run."""
        with get_client(sync_client=True) as client:
            return client.read_flow_run(run.id)


def processes_of(run_ids: set[str]) -> list[psutil.Process]:
    """Return the processes that work for flow runs."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PREFECT__FLOW_RUN_ID") in run_ids:
                found.append(process)
    return found
