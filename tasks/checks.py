"""What can be checked about a run's settings before anything is read or loaded."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from prefect.settings import PREFECT_API_URL
from pydantic import TypeAdapter, ValidationError

from tasks.compute import ComputeConfig
from tasks.config import DataConfig, EvaluationConfig, PairsConfig, RewardModelConfig, SftConfig
from tasks.dispatch import find_pool
from tasks.errors import ConfigurationError
from tasks.gpus import Need
from tasks.sections import DataSource
from tasks.training_config import DpoConfig, Training


def check_run(
    data: DataConfig,
    sft: SftConfig,
    reward_model: RewardModelConfig,
    pairs: PairsConfig,
    dpo: DpoConfig,
    evaluation: EvaluationConfig,
) -> None:
    """Refuse settings that do not fit together.

    Raises:
        ConfigurationError: Names the field and the remedy.
    """
    if sft.base_model is not None and data.demonstrations is None:
        raise ConfigurationError(
            "data.demonstrations is missing: train_sft needs it; or name a ready policy in sft.ready_model"
        )
    if reward_model.ready_model is None and data.preferences is None:
        raise ConfigurationError(
            "data.preferences is missing: train_reward_model needs it; or name a ready one in reward_model.ready_model"
        )
    if data.preferences == "gold" and evaluation.gold_reward is None:
        raise ConfigurationError(
            "data.preferences = gold needs evaluation.gold_reward: the function that labels the pairs"
        )
    if pairs.strategy == "annotation" and not isinstance(data.preferences, DataSource):
        raise ConfigurationError("pairs.strategy = annotation needs a file in data.preferences: the pairs to train on")
    _check_trainer_arguments(sft, "SFTConfig")
    _check_trainer_arguments(reward_model, "RewardConfig")
    _check_trainer_arguments(dpo, "DPOConfig")


def check_compute(compute: ComputeConfig, needs: Mapping[str, Need]) -> None:
    """Refuse deployments that Prefect's server does not have, and stages for which their workers have too few GPUs.

    Args:
        compute: Which deployment computes which stage.
        needs: GPUs of stages; those that are not named need one.

    Raises:
        ConfigurationError: Names the stage and the remedy.
    """
    for stage, name in compute.deployments().items():
        server = PREFECT_API_URL.value()
        if server is None:
            raise ConfigurationError(
                f"compute.{stage} = {name!r} needs a Prefect server: set PREFECT_API_URL, or use `inline`"
            )
        pool, need = find_pool(name), needs.get(stage)
        if pool is None:
            raise ConfigurationError(
                f"compute.{stage} = {name!r}: Prefect's server at {server} has no such deployment: deploy prefect.yaml "
                "there, or use `inline`"
            )
        if need is not None and pool.gpus is not None and need.gpus > pool.gpus:
            raise ConfigurationError(
                f"{need.setting} = {need.gpus}: compute.{stage} = {name!r} runs on the pool {pool.name}, whose workers "
                f"have {pool.gpus} GPUs each, so it would wait for ever: lower it, or give them more "
                f"(python -m infra.apply --gpus N --gpus-per-worker {need.gpus}, and start the workers anew)"
            )


ELSEWHERE = ("ddp_", "deepspeed", "fsdp", "parallelism_config", "report_to", "tf32", "torch_compile")
"""Beginnings of arguments that only the machine that trains can check, or that would change this process."""


def _check_trainer_arguments(section: Training, class_name: str) -> None:
    """Build TRL's configuration, and the schedule, with what would be passed, where it is not what is always passed."""
    if not section.extra and section.scheduler == Training.model_fields["scheduler"].default:
        return
    import torch
    import trl
    from transformers.optimization import get_scheduler

    given = {name: value for name, value in section.extra.items() if not name.startswith(ELSEWHERE)}
    _check_types(section.section, given, getattr(trl, class_name))
    try:
        with _as_it_was():
            arguments = getattr(trl, class_name)(
                output_dir="unused", use_cpu=True, report_to="none", lr_scheduler_type=section.scheduler, **given
            )
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=section.learning_rate)
        get_scheduler(arguments.lr_scheduler_type, optimizer, 1, 10, arguments.lr_scheduler_kwargs or {})
    except (TypeError, ValueError, ImportError, OSError) as error:
        raise ConfigurationError(
            f"{section.section}.scheduler = {section.scheduler!r} and {section.section}.extra = {section.extra} do not "
            f"suit trl.{class_name}: {error}"
        ) from error


def _check_types(section: str, given: dict[str, Any], arguments: type) -> None:
    """Refuse values of another type than a field of a library's class declares, which the class itself lets pass."""
    types = get_type_hints(arguments)
    for name, value in given.items():
        try:
            taken = TypeAdapter(types[name]).validate_python(value)
        except ValidationError as error:
            raise ConfigurationError(f"{section}.extra.{name} = {value!r}: {error.errors()[0]['msg']}") from error
        if isinstance(value, str) and isinstance(taken, int | float):
            raise ConfigurationError(f"{section}.extra.{name} = {value!r} must be a number: take the quotes away")


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Leave accelerate's state, which a training configuration sets for the whole process, as it was."""
    from accelerate.state import AcceleratorState, PartialState

    was_set = bool(PartialState._shared_state)
    try:
        yield
    finally:
        if not was_set:
            AcceleratorState._reset_state(reset_partial_state=True)
