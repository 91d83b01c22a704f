"""What TRL, transformers and peft say of a training's settings, asked before anything is read or computed.

Their own classes are built, apart from what would change this process or asks for the hardware of another.
"""

import typing
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from tasks.config.compute import ComputeConfig
from tasks.config.errors import ConfigurationError
from tasks.config.training import Training
from tasks.models.loading import model_folder, trusts_remote_code
from tasks.pipeline.remembered import unless_passed
from tasks.store.artifacts import Artifact
from tasks.training.trackers import check_trackers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments

CLASSES = {"sft": "SFTConfig", "reward_model": "RewardConfig", "dpo": "DPOConfig", "rloo": "RLOOConfig"}
"""Section -> TRL's class for its arguments."""
ELSEWHERE = ("ddp_", "deepspeed", "fsdp", "report_to", "tf32", "torch_compile")
"""Beginnings of arguments that only the machine that trains can check, or that would change this process."""
STEPS = 10
"""Steps of the schedule that is built on trial."""


def check_trainer_arguments(*sections: Training) -> None:
    """Build TRL's configurations, the optimizers and the schedules, where they are not what is always built.

    Raises:
        ConfigurationError: Names the section and the argument.
    """
    for section in sections:
        if section.extra or section.scheduler != Training.model_fields["scheduler"].default:
            unless_passed(_build_arguments, section)


def _build_arguments(section: Training) -> None:
    import torch
    import trl

    kind = getattr(trl, CLASSES[section.section])
    given = {name: value for name, value in section.extra.items() if not name.startswith(ELSEWHERE)}
    _check_types(section.section, given, kind)
    on_trial = type(kind.__name__, (kind,), {"device": property(lambda self: torch.device("cpu"))})  # sets up none
    try:
        arguments = on_trial(
            output_dir="unused", use_cpu=True, report_to="none", lr_scheduler_type=section.scheduler, **given
        )
        _build_optimizer(section, arguments)
    except (TypeError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"{section.section}.scheduler = {section.scheduler!r} and {section.section}.extra = {section.extra} do not "
            f"suit trl.{kind.__name__}: {error}"
        ) from error


def check_machine(section: Training) -> None:
    """Refuse what this machine, which trains the section's model, does not have.

    Raises:
        ConfigurationError: It has no GPU for float16, or not what reports go to.
    """
    if section.dtype == "float16":
        import torch

        if not torch.cuda.is_available():
            raise ConfigurationError(
                f"{section.section}.dtype = float16 trains on GPUs only, and none is here: set bfloat16 or float32"
            )
    check_trackers(section)


def check_adapters(section: Training, model: Artifact) -> None:
    """Refuse adapters of modules that a model does not have; only its configuration is read.

    Raises:
        ConfigurationError: A module is not there or cannot be adapted, or is the head, which TRL would not train.
    """
    if section.lora is None or section.lora.target_modules == "all-linear":
        return
    import torch
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    from tasks.rewards.heads import head_modules
    from tasks.training.trainer import lora_config

    name, wanted = f"{section.section}.lora.target_modules", section.lora.target_modules
    is_reward_model = section.section == "reward_model"
    with torch.device("meta"):
        empty = _without_weights(model, is_reward_model)
        modules = [module for module, _ in empty.named_modules()]
        # peft passes over a name of a list that no module has where another name of the list has one.
        names = [] if isinstance(wanted, str) else wanted
        if missing := [each for each in names if not any(f".{module}".endswith(f".{each}") for module in modules)]:
            known = ", ".join(sorted({module.rpartition(".")[2] for module in modules} - {""}))
            raise ConfigurationError(f"{name}: the model has no module {missing[0]!r}, but {known}")
        try:
            new = head_modules(empty) if is_reward_model else None
            inject_adapter_in_model(
                lora_config(section.lora, "SEQ_CLS" if is_reward_model else "CAUSAL_LM", new), empty
            )
        except ValueError as error:
            raise ConfigurationError(f"{name} = {wanted!r}: {' '.join(str(error).split())}") from error
    if not is_reward_model and isinstance(empty.get_output_embeddings(), BaseTunerLayer):
        raise ConfigurationError(f"{name} = {wanted!r} takes in the head, whose adapter TRL would not train: leave it")


def _without_weights(model: Artifact, is_reward_model: bool) -> "PreTrainedModel":
    """Return a model of empty tensors, with the scalar head of a reward model, or a causal head."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    trust = trusts_remote_code(model)
    config = AutoConfig.from_pretrained(model_folder(model, weights=False), trust_remote_code=trust)
    kind = AutoModelForSequenceClassification if is_reward_model else AutoModelForCausalLM
    return kind.from_config(config, trust_remote_code=trust)


def _check_types(section: str, given: dict[str, Any], arguments: type) -> None:
    """Refuse values of another type than a field of a library's class declares, which the class itself lets pass."""
    hints = typing.get_type_hints(arguments)
    for name, value in given.items():
        try:
            taken = TypeAdapter(hints[name], config=ConfigDict(allow_inf_nan=False)).validate_python(value)
        except ValidationError as error:
            raise ConfigurationError(f"{section}.extra.{name} = {value!r}: {error.errors()[0]['msg']}") from error
        if isinstance(value, str) and isinstance(taken, int | float):
            raise ConfigurationError(f"{section}.extra.{name} = {value!r} must be a number: take the quotes away")
        if isinstance(value, bool | float) and not isinstance(taken, type(value)):
            wanted = getattr(hints[name], "__name__", str(hints[name]))
            raise ConfigurationError(f"{section}.extra.{name} = {value!r} must be of the type {wanted}")


def _build_optimizer(section: Training, arguments: "TrainingArguments") -> None:
    """Build the optimizer and the schedule of the learning rate on one number."""
    import torch
    from transformers import Trainer
    from transformers.optimization import get_scheduler

    if arguments.weight_decay < 0:  # torch checks its default alone, and no group of parameters
        raise ValueError(f"weight_decay = {arguments.weight_decay} must be at least 0")
    optimizer: Any = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=section.learning_rate)
    get_scheduler(arguments.lr_scheduler_type, optimizer, 1, STEPS, arguments.lr_scheduler_kwargs or {})
    try:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    except ImportError:  # of a package that the machine that trains may have
        return
    if kind.__module__.startswith(("torch.", "transformers.")):
        kind([torch.zeros(1, requires_grad=True)], **settings)


def check_trainings(compute: ComputeConfig, *trainings: tuple[Training, Artifact]) -> None:
    """Refuse what the models that are trained, or this machine where it trains them, do not allow.

    Args:
        compute: Which deployment computes which stage.
        trainings: Sections, and the models that they train or that have the same modules.

    Raises:
        ConfigurationError: Names the section and the setting.
    """
    for section, model in trainings:
        if getattr(section, "ready_model", None) is not None:
            continue
        unless_passed(check_adapters, section, model)
        if f"train_{section.section}" not in compute.deployments():
            check_machine(section)
