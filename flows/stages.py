"""Each GPU stage as a flow of its own, for a deployment on a pool of GPU workers (`compute` in the configuration).

The flow computes in its own process and commits to the store; the pipeline that asked for it reads it there.
"""

import inspect
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any

from prefect import Flow, flow
from prefect.concurrency.sync import concurrency

from tasks.config.compute import GPU_STAGES
from tasks.pipeline.dispatch import GPU_LIMIT
from tasks.pipeline.gpus import gpus_of_run
from tasks.pipeline.jobs import exit_within, on_sigterm
from tasks.pipeline.site import Site
from tasks.pipeline.stage import Stage
from tasks.store.folders import Store

STAGES: dict[str, Stage[...]] = {name: getattr(import_module(module), name) for name, module in GPU_STAGES.items()}
"""The stages that need a GPU, by name."""
LAST_SECONDS = 4.0
"""What a run has after SIGTERM to end by itself."""


@contextmanager
def gpus(number: int) -> Iterator[None]:
    """Hold the slots of so many GPUs, all at once or none.

    A server that is gone for a while does not end the work, and the slots of a dead run come free.

    Raises:
        ConcurrencySlotAcquisitionError: The server has no such limit, or fewer slots altogether.
    """
    slots = concurrency(GPU_LIMIT, occupy=number, strict=True, lease_duration=60, raise_on_lease_renewal_failure=False)
    with slots, ended_by_sigterm():
        yield


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """End the process soon after SIGTERM, even where a library swallows the exception that Prefect makes of it.

    Prefect itself would wait for 30 s. A training puts its own handler in place of this one, and takes time to save.
    """
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before):
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        exit_within(LAST_SECONDS, 128 + number)
        before(number, frame)

    with on_sigterm(handle):
        yield


def as_flow(stage: Stage[...]) -> Flow[..., None]:
    """Return a flow that computes a stage here: its parameters are the store and the arguments of the stage."""

    def compute(store: str, **arguments: Any) -> None:
        with gpus(gpus_of_run(arguments)):
            stage(Site(Store(store)), **arguments)

    own = list(stage.signature.parameters.values())[1:]
    parameters = [inspect.Parameter("store", inspect.Parameter.KEYWORD_ONLY, annotation=str)]
    parameters += [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    compute.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Prefect reads
    compute.__name__, compute.__doc__ = stage.name, inspect.getdoc(stage.body)
    name, run_name = stage.name.replace("_", "-"), stage.options.get("run_name")
    return flow(name=name, flow_run_name=run_name)(compute)


globals().update({name: as_flow(stage) for name, stage in STAGES.items()})
