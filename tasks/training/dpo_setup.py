"""What a DPO training is set up with: its examples, its packs, TRL's arguments, and its losses."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.config.errors import ConfigurationError
from tasks.config.losses import OWN_LOSSES, needs, needs_reference
from tasks.config.training import DpoConfig
from tasks.data.prompt_table import hash_fraction
from tasks.pipeline.jobs import Job
from tasks.pipeline.progress import log
from tasks.training.packs import UNBOUNDED, DpoExample, Limits, Pack, PackSchedule, schedule_packs
from tasks.training.weights import count_completions, weigh_by_prompt

if TYPE_CHECKING:
    from trl import DPOConfig as DpoArguments

    from tasks.training.pair_values import OwnLoss

MOST_HELD_OUT = 128
"""Prompts that are measured: they are forwarded some ten times in a training."""


class ExamplesOnDisk(Sequence[DpoExample]):
    """The examples of a job in the order of their prompt ids, each read from disk when it is asked for."""

    def __init__(self, rows: Any, order: np.ndarray) -> None:
        """Take rows on disk, and the places of the examples among them, in order."""
        self.rows, self.order = rows, order

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.order)

    def __getitem__(self, number: Any) -> Any:
        """Return an example."""
        row = self.rows[int(self.order[number])]
        return DpoExample(**{name: row.get(name) for name in DpoExample._fields})


def split_examples(job: Job, config: DpoConfig) -> tuple[ExamplesOnDisk, ExamplesOnDisk]:
    """Return the examples to train on, and at most `MOST_HELD_OUT` of the others, told apart by the hash of the prompt.

    Sorted by prompt_id: the order on disk may differ between two equal tables of pairs.

    Raises:
        ConfigurationError: None is left to train on.
    """
    rows = job.examples()
    ids = np.array(rows["prompt_id"])
    order = np.argsort(ids)
    hashes = np.array([hash_fraction(f"dpo:{config.seed}:{prompt_id}") for prompt_id in ids[order]])
    held_out = hashes < config.evaluation_fraction
    if held_out.all():
        raise ConfigurationError(
            f"the pairs of all {len(ids)} prompts are held out, none is left to train on: lower "
            f"dpo.evaluation_fraction = {config.evaluation_fraction:g}"
        )
    if config.evaluation_fraction and not held_out.any():
        log(f"none of {len(ids)} prompts is held out: raise dpo.evaluation_fraction = {config.evaluation_fraction:g}")
    first = np.flatnonzero(held_out)[np.argsort(hashes[held_out])[:MOST_HELD_OUT]]
    return ExamplesOnDisk(rows, order[~held_out]), ExamplesOnDisk(rows, order[np.sort(first)])


def plan_training(examples: Sequence[DpoExample], limits: Limits, config: DpoConfig) -> PackSchedule:
    """Return the packs of a training."""
    return weighed(schedule_packs(examples, limits, config.epochs, config.max_steps, config.seed), examples, config)


def plan_measuring(held_out: Sequence[DpoExample], limits: Limits, config: DpoConfig) -> list[Pack]:
    """Return the packs of what is measured, all in one step on each device."""
    whole = schedule_packs(held_out, limits._replace(batch_size=UNBOUNDED, devices=1), 1, None, 0)
    return weighed(whole, held_out, config).packs


def weighed(schedule: PackSchedule, examples: Sequence[DpoExample], config: DpoConfig) -> PackSchedule:
    """Return packs in which each pair weighs what the configuration says, and has its part of its completions."""
    if needs(config.losses, "shares"):
        schedule = count_completions(schedule, examples)
    return weigh_by_prompt(schedule, examples) if config.weight_pairs == "prompt" else schedule


def dpo_arguments(
    job: Job, config: DpoConfig, losses: list[tuple[str, float]], schedule: PackSchedule
) -> "DpoArguments":
    """Return the configuration of TRL's trainer, which walks through packs in their order.

    Args:
        job: The training.
        config: The section of the configuration.
        losses: Names and weights of the losses that TRL computes.
        schedule: The packs.
    """
    from trl import DPOConfig as DpoArguments

    from tasks.training.trainer import trainer_arguments

    arguments = trainer_arguments(job, config) | {
        "beta": config.beta,
        "label_smoothing": config.label_smoothing,
        "loss_type": [name for name, _ in losses] or ["sigmoid" if needs_reference(config.losses) else "sft"],
        "loss_weights": [weight for _, weight in losses] or [0.0],
        "precompute_ref_log_probs": True,
        "router_aux_loss_coef": 0.0,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": schedule.accumulation,
        "max_steps": schedule.steps,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
    }
    return DpoArguments(**arguments)


def split_losses(config: DpoConfig) -> tuple[list[tuple["OwnLoss", float]], list[tuple[str, float]]]:
    """Return our own losses with their weights, and the names of TRL's losses with theirs."""
    weights = config.loss_weights or (1.0,) * len(config.losses)
    named = list(zip(config.losses, weights, strict=True))
    own = [pair for pair in named if pair[0] in OWN_LOSSES or (pair[0] == "sigmoid" and config.label_smoothing)]
    return [(own_loss(name, config), w) for name, w in own], [pair for pair in named if pair not in own]


def own_loss(name: str, config: DpoConfig) -> "OwnLoss":
    """Return a loss of ours with its settings; `sigmoid` is cDPO."""
    from tasks.training import losses

    if name == "sigmoid":
        return lambda values: losses.cdpo_loss(values.margins, config.label_smoothing)
    function, reads = getattr(losses, f"{name}_loss"), OWN_LOSSES[name].reads
    settings = {parameter: getattr(config, field) for parameter, field in OWN_LOSSES[name].settings.items()}
    return lambda values: function(*(getattr(values, value) for value in reads), **settings)


def mean_scale(config: DpoConfig) -> float | None:
    """Return what a completion's mean log-probability is multiplied with to be its reward; None: there is a reference.

    SimPO's beta, where SimPO is trained: then the margin is what its loss compares with gamma. Else 1.
    """
    if needs_reference(config.losses):
        return None
    return config.simpo_beta if "simpo" in config.losses else 1.0
