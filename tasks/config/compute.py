"""Where the GPU stages compute: the `compute` section of a configuration."""

import re
from typing import Self

from pydantic import Field, model_validator

from tasks.config.errors import ConfigurationError
from tasks.config.sections import Section

INLINE = "inline"
"""Computes a stage in the process of the flow."""


class ComputeConfig(Section):
    """Where the GPU stages compute: `inline`, in the flow's own process, or a deployment on a pool of GPU workers."""

    train_sft: str = INLINE
    """`inline` or `flow/deployment`."""
    train_reward_model: str = INLINE
    """`inline` or `flow/deployment`."""
    sample_completions: str = INLINE
    """`inline` or `flow/deployment`."""
    score_completions: str = INLINE
    """`inline` or `flow/deployment`."""
    train_dpo: str = INLINE
    """`inline` or `flow/deployment`."""
    evaluate_policy: str = INLINE
    """`inline` or `flow/deployment`."""
    shards: int = Field(1, ge=1, le=100)
    """Workers that sampling and scoring are split over, each with its own prompts; at most what the pool has."""

    @model_validator(mode="after")
    def _names_a_deployment(self) -> Self:
        for stage, place in self.deployments().items():
            if not re.fullmatch(r"[^/]+/[^/]+", place):
                raise ConfigurationError(
                    f"compute.{stage} = {place!r} must be `inline` or the name of a flow/deployment"
                )
        if self.shards > 1 and INLINE in (self.sample_completions, self.score_completions):
            raise ConfigurationError(
                f"compute.shards = {self.shards} needs deployments in compute.sample_completions and "
                "compute.score_completions: one process samples and scores in one piece"
            )
        return self

    def deployments(self) -> dict[str, str]:
        """Return the stages that a deployment computes, with its name."""
        return {stage: place for stage in STAGES if (place := getattr(self, stage)) != INLINE}


STAGES = tuple(name for name in ComputeConfig.model_fields if name != "shards")
"""Stages that need a GPU: those that `compute` places."""
