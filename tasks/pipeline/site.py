"""Where a run lives: the store of its artifacts, and where its stages compute."""

from dataclasses import dataclass, field
from typing import Protocol

from prefect import runtime

from tasks.config.compute import ComputeConfig
from tasks.pipeline.configuration import Config
from tasks.pipeline.dry_run import PLAN
from tasks.pipeline.progress import log
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store, open_store
from tasks.store.runs import RunRecord


class Watcher(Protocol):
    """Sees what a run does, stage by stage."""

    def saw(self, stage: str, artifact: Artifact) -> None:
        """Look at the output of a stage, which was computed or found."""

    def ended(self) -> dict[str, Artifact]:
        """Return what there is to tell of a run whose stages are all done: its `report`, and what else."""


@dataclass
class Site:
    """A store, and where the stages that fill it compute."""

    store: Store
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    record: RunRecord | None = None
    """What `prune` keeps for this run; None for a part of another run."""
    watcher: Watcher | None = None
    computed: dict[str, int] = field(default_factory=dict)
    """Stages that the store did not have, and how much of each was missing; 0 where its table was full."""
    made: set[str] = field(default_factory=set)
    """URIs of the outputs that the store did not have."""

    def finish(self, artifacts: dict[str, Artifact]) -> dict[str, Artifact]:
        """Record the artifacts of a run that has ended, and say what it computed."""
        if self.record is not None:
            self.record.finish(artifacts)
        missing = {stage: count for stage, count in self.computed.items() if count}
        computed = ", ".join(f"{stage} ({count})" if count > 1 else stage for stage, count in missing.items())
        log(f"computed {computed}" if computed else "nothing new: the store has every stage")
        return artifacts if self.watcher is None else artifacts | self.watcher.ended()


def open_site(store: str, compute: ComputeConfig, config: Config | None = None, expected: tuple[str, ...] = ()) -> Site:
    """Open a store for a run, whose record says how it was configured.

    Args:
        store: Its URI.
        compute: Where stages compute.
        config: The whole configuration, for the record.
        expected: Names of the stages that the run will look at, in order, for `flows.status`.

    Raises:
        ConfigurationError: The URI is wrong, or the store cannot be written.
    """
    opened = open_store(store)
    if config is not None and config.data.pilot is not None:  # what shards cost, no one manifest says
        compute = compute.model_copy(update={"shards": 1})
    if PLAN.get() is not None:
        return Site(opened, compute)
    facts = {"config": {} if config is None else config.model_dump(mode="json"), "expected": expected}
    return Site(opened, compute, RunRecord.begin(opened, flow_run_id=runtime.flow_run.id or "", **facts))
