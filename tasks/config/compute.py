"""Where the GPU stages compute: the `compute` section of a configuration."""

import re
from typing import Any, Self

from pydantic import Field, create_model, model_validator

from tasks.config.errors import ConfigurationError
from tasks.config.sections import Section

INLINE = "inline"
"""Computes a stage in the process of the flow."""
GPU_STAGES = {
    "train_sft": "tasks.sft",
    "train_reward_model": "tasks.reward_model",
    "sample_completions": "tasks.sample",
    "score_completions": "tasks.score",
    "train_dpo": "tasks.dpo",
    "train_rloo": "tasks.rloo",
    "evaluate_policy": "tasks.evaluate",
    "measure_policies": "tasks.measure_policies",
}
"""Stages that need a GPU, each with its module. A line here makes a field of `compute` and a flow for the workers."""

_places: dict[str, Any] = {
    stage: (str, Field(INLINE, description="`inline` or `flow/deployment`.")) for stage in GPU_STAGES
}
_Places: Any = create_model("_Places", __base__=Section, **_places)


class ComputeConfig(_Places):
    """Where the GPU stages compute: `inline`, in the flow's own process, or a deployment on a pool of GPU workers."""

    shards: int = Field(1, ge=1, le=100)
    """Workers that sampling and scoring are split over, each with its own prompts; at most what the pool has."""
    price_per_hour: float | None = Field(None, ge=0, allow_inf_nan=False)
    """What an hour of a worker costs, in any currency: the report then says what the run has cost, and a pilot what the
    whole run will."""

    @model_validator(mode="after")
    def _names_a_deployment(self) -> Self:
        for stage, place in self.deployments().items():
            if not re.fullmatch(r"[^/]+/[^/]+", place):
                raise ConfigurationError(
                    f"compute.{stage} = {place!r} must be `inline` or the name of a flow/deployment"
                )
        if self.shards > 1 and not {"sample_completions", "score_completions"} <= self.deployments().keys():
            raise ConfigurationError(
                f"compute.shards = {self.shards} needs deployments in compute.sample_completions and "
                "compute.score_completions: one process samples and scores in one piece"
            )
        return self

    def deployments(self) -> dict[str, str]:
        """Return the stages that a deployment computes, with its name."""
        return {stage: place for stage in GPU_STAGES if (place := getattr(self, stage)) != INLINE}
