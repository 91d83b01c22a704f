"""Where a run lives: the store of its artifacts, and where its stages compute."""

from dataclasses import dataclass, field

from tasks.config.compute import ComputeConfig
from tasks.pipeline.configuration import Config
from tasks.pipeline.dry_run import PLAN
from tasks.pipeline.progress import log
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store, open_store
from tasks.store.runs import RunRecord


@dataclass
class Site:
    """A store, and where the stages that fill it compute."""

    store: Store
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    record: RunRecord | None = None
    """What `prune` keeps for this run; None for a part of another run."""
    computed: dict[str, int] = field(default_factory=dict)
    """Stages that the store did not have, and how much of each was missing; 0 where its table was full."""

    def finish(self, artifacts: dict[str, Artifact]) -> dict[str, Artifact]:
        """Record the artifacts of a run that has ended, and say what it computed."""
        if self.record is not None:
            self.record.finish(artifacts)
        missing = {stage: count for stage, count in self.computed.items() if count}
        computed = ", ".join(f"{stage} ({count})" if count > 1 else stage for stage, count in missing.items())
        log(f"computed {computed}" if computed else "nothing new: the store has every stage")
        return artifacts


def open_site(store: str, compute: ComputeConfig, config: Config | None = None) -> Site:
    """Open a store for a run, whose record says how it was configured.

    Raises:
        ConfigurationError: The URI is wrong, or the store cannot be written.
    """
    opened = open_store(store)
    settings = None if config is None else config.model_dump(mode="json")
    return Site(opened, compute, None if PLAN.get() else RunRecord.begin(opened, settings))
