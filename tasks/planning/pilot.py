"""What a pilot does less of: it goes through the same stages, with fewer prompts and only the first steps of DPO."""

from tasks.config.data import DataConfig
from tasks.config.training import DpoConfig

STEPS = 10
"""Optimizer steps of DPO in a pilot: enough to know how long one takes."""


def pilot_dpo(dpo: DpoConfig, data: DataConfig) -> DpoConfig:
    """Return the settings of DPO; in a pilot, of its first steps."""
    if data.pilot is None:
        return dpo
    return dpo.model_copy(update={"max_steps": min(STEPS, dpo.max_steps or STEPS), "logging_steps": 1})


def pilot_evaluation(data: DataConfig) -> int | None:
    """Return how many held-out prompts the policies are compared on at most; in a pilot, no more than it draws."""
    limits = [limit for limit in (data.max_evaluation_prompts, data.pilot) if limit is not None]
    return min(limits, default=None)
