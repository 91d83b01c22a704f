"""How many GPUs a stage computes on: what a worker must have to run it, and the slots that it takes."""

import math
from typing import NamedTuple

from tasks.config.sections import Section
from tasks.config.settings import Decoding, RewardModelConfig, SamplingConfig, SftConfig
from tasks.config.training import DpoConfig, Training

PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
"""Arguments of vLLM whose product is its GPUs."""


class Need(NamedTuple):
    """The GPUs of a stage."""

    gpus: int
    setting: str
    """The setting that says so, for messages."""


def gpus_of(section: Section) -> int:
    """Return the GPUs that a stage with these settings computes on."""
    if isinstance(section, Training):
        return section.devices
    extra = section.extra if isinstance(section, Decoding) else {}
    return math.prod(int(extra.get(name, 1)) for name in PARALLEL)


def gpus_needed(
    sft: SftConfig, reward_model: RewardModelConfig, sampling: SamplingConfig, dpo: DpoConfig
) -> dict[str, Need]:
    """Return, by name, the GPUs of each stage that may need more than one."""
    engine = Need(gpus_of(sampling), f"sampling.extra, {' x '.join(PARALLEL)},")
    needs = {"sample_completions": engine, "evaluate_policy": engine, "train_dpo": Need(dpo.devices, "dpo.devices")}
    if sft.ready_model is None:
        needs["train_sft"] = Need(sft.devices, "sft.devices")
    if reward_model.ready_model is None:
        needs["train_reward_model"] = Need(reward_model.devices, "reward_model.devices")
    return needs
