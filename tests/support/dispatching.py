"""The stage that a worker computes, and the pool that its tests deploy it to."""

from tasks.config.compute import ComputeConfig
from tasks.store.artifacts import Artifact

SOURCE = Artifact(kind="number", uri="file:///anywhere", digest="5" * 64, rows=5)


COMPUTE = ComputeConfig(train_sft="train-sft/test")


POOL = "test-dispatch"
