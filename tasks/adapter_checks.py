"""Whether a model has the modules that adapters are asked for, before anything is trained."""

import re

from tasks.artifacts import Artifact
from tasks.config import RewardModelConfig, SftConfig
from tasks.errors import ConfigurationError
from tasks.models import model_folder, trusts_remote_code
from tasks.training_config import DpoConfig, Training
from tasks.weights import Role, bare


def check_adapters(
    base_model: Artifact, reward_base: Artifact, sft: SftConfig, reward_model: RewardModelConfig, dpo: DpoConfig
) -> None:
    """Refuse target modules that a model does not have: peft passes over them, or fails once the stage begins.

    Raises:
        ConfigurationError: Names the module, and those that there are.
    """
    if sft.ready_model is None:
        _check(base_model, sft, "policy")
    if reward_model.ready_model is None:
        _check(reward_base or base_model, reward_model, "reward_base")
    _check(base_model, dpo, "policy")


def _check(model: Artifact, section: Training, role: Role) -> None:
    if section.lora is None or section.lora.target_modules == "all-linear":
        return
    network = bare(model_folder(model, weights=False), role, trusts_remote_code(model))
    names = [name for name, _ in network.named_modules() if name]
    targets = section.lora.target_modules
    if isinstance(targets, str):
        lost = [] if any(re.fullmatch(targets, name) for name in names) else [targets]
    else:
        lost = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in names)]
    if lost:
        known = sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdigit()})
        raise ConfigurationError(
            f"{section.section}.lora.target_modules: the model has no module {lost[0]!r}; it has {', '.join(known)}; "
            "`all-linear` takes every linear one"
        )
