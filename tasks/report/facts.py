"""What is known of a run: the outputs of its stages so far, and how it was asked for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tasks.monitors.judging import Verdict
from tasks.pipeline.configuration import Config
from tasks.planning.prediction import Planned
from tasks.store.artifacts import NOTHING, Artifact, Manifest
from tasks.store.folders import Store
from tasks.store.manifests import read_files, read_manifest
from tasks.store.parquet import read_file
from tasks.store.runs import Run


@dataclass
class Facts:
    """A run, as far as it has come."""

    store: Store
    config: Config
    run: Run | None = None
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    """Stage -> its output; of a stage that is called for several rewards, `stage reward` -> that of a further one."""
    reward_models: dict[str, Artifact] = field(default_factory=dict)
    """The reward models by name."""
    made: Collection[str] = ()
    """URIs of the outputs that were computed in this run; the others were found in the store."""
    verdicts: list[Verdict] = field(default_factory=list)
    curve: Artifact = NOTHING
    """The evaluation of the models that were kept along the training."""
    planned: Planned | None = None
    """What a pilot has predicted, once the run has ended."""

    def stats(self, stage: str) -> Mapping[str, Any]:
        """Return what a stage has recorded; nothing where it has not come yet."""
        return self.artifacts[stage].stats if stage in self.artifacts else {}

    def table(self, stage: str, name: str, kind: str) -> pa.Table | None:
        """Return a Parquet file of a stage's output; None where the stage has not come, or left no such rows."""
        if stage not in self.artifacts or name not in read_files(self.artifacts[stage]):
            return None
        found = read_file(self.artifacts[stage], name, kind)
        return found if found.num_rows else None

    def manifest(self, stage: str) -> Manifest:
        """Return the manifest of a stage's output."""
        return read_manifest(self.artifacts[stage].uri)
