"""What a section's `extra` may pass to a library: arguments that do something there and that nothing else decides.

A list of what is allowed, not of what is refused: an argument that no one has looked at would be accepted, enter the
stage key, and do nothing.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def with_numbers(value: Any) -> Any:
    """Return a value with texts such as `1e-5`, which YAML 1.1 does not take for numbers, as numbers, however deep."""
    if isinstance(value, dict):
        return {name: with_numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [with_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


Extra = Annotated[dict[str, Any], AfterValidator(with_numbers)]
"""Further arguments of a library, numbers read as such."""

CHANGES_NO_OUTPUT = frozenset(
    {
        *("dataloader_num_workers", "dataloader_persistent_workers", "dataloader_pin_memory"),
        *("dataloader_prefetch_factor", "ddp_timeout", "logging_first_step", "logging_nan_inf_filter"),
        *("project", "report_to", "run_name", "trackio_space_id", "trackio_bucket_id"),
    }
)
"""Arguments that leave the trained model as it is, so that they are in no stage key."""
EVERY_TRAINER = CHANGES_NO_OUTPUT | frozenset(
    {
        *("adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "weight_decay"),
        *("optim", "optim_args", "optim_target_modules", "lr_scheduler_kwargs"),
        *("gradient_checkpointing", "gradient_checkpointing_kwargs", "activation_offloading"),
        *("deepspeed", "fsdp", "fsdp_config"),
        *("ddp_backend", "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_find_unused_parameters"),
        *("ddp_static_graph", "full_determinism", "tf32", "torch_empty_cache_steps"),
    }
)
"""Arguments of TRL's trainer configurations that every training reads and no setting decides."""
OWN = {
    "sft": frozenset(
        {
            *("liger_kernel_config", "use_liger_kernel", "neftune_noise_alpha", "pad_to_multiple_of"),
            *("loss_type", "router_aux_loss_coef"),
            *("torch_compile", "torch_compile_backend", "torch_compile_mode"),
        }
    ),
    "reward_model": frozenset({"disable_dropout", "neftune_noise_alpha"}),
    "dpo": frozenset({"discopop_tau", "f_alpha_divergence_coef", "f_divergence_type", "use_weighting"}),
    "rloo": frozenset({"normalize_advantages"}),
}
"""Section -> further arguments that its trainer reads."""
_OF_RATIOS = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop")
READ_BY = {
    "discopop_tau": ("discopop",),
    "f_alpha_divergence_coef": _OF_RATIOS,
    "f_divergence_type": _OF_RATIOS,
}
"""Arguments of DPO that only some losses read (TRL 1.16); at least one of the losses must."""
GOES_WITH = {
    "f_alpha_divergence_coef": (*_OF_RATIOS, "sft"),
    "f_divergence_type": (*_OF_RATIOS, "sft"),
    "use_weighting": (
        *(name for name in _OF_RATIOS if name != "hinge"),
        "nca_pair",
        "bco_pair",
        "sppo_hard",
        "apo_zero",
        "apo_down",
    ),
}
"""Arguments of DPO that no other loss may stand beside: it has no such divergence, or no weight of a pair (into `hinge`
TRL 1.16 multiplies it in place, where the gradient needs what was there)."""
NEEDS = {
    "dataloader_persistent_workers": "dataloader_num_workers",
    "dataloader_prefetch_factor": "dataloader_num_workers",
    "fsdp_config": "fsdp",
    "gradient_checkpointing_kwargs": "gradient_checkpointing",
    "liger_kernel_config": "use_liger_kernel",
    "project": "report_to",
    "run_name": "report_to",
    "trackio_bucket_id": "report_to",
    "trackio_space_id": "report_to",
}
"""Argument -> another, without which it does nothing."""
_UNSET: Any = (None, False, 0, "", "none", [])
SET_INSTEAD = {
    "beta": "set {section}.beta",
    "bf16": "set {section}.dtype",
    "data_seed": "set {section}.seed",
    "fp16": "set {section}.dtype",
    "gradient_accumulation_steps": "set {section}.batch_size, and {forwarded}",
    "label_smoothing": "set {section}.label_smoothing",
    "learning_rate": "set {section}.learning_rate",
    "logging_steps": "set {section}.logging_steps",
    "loss_type": "set {section}.loss_type",
    "loss_weights": "set {section}.loss_weights",
    "lr_scheduler_type": "set {section}.scheduler",
    "max_completion_length": "set sampling.max_new_tokens",
    "max_length": "set {section}.max_length",
    "max_steps": "set {section}.max_steps",
    "num_generations": "set {section}.k",
    "num_train_epochs": "set {section}.epochs",
    "per_device_train_batch_size": "set {forwarded}, and {section}.batch_size for the optimizer step",
    "save_steps": "set {section}.save_steps",
    "seed": "set {section}.seed",
    "use_cpu": "hide the GPUs with CUDA_VISIBLE_DEVICES",
    "warmup_ratio": "set {section}.warmup_ratio",
    "warmup_steps": "set {section}.warmup_ratio",
    "accelerator_config": "batch_size and the stage decide how batches are cut and handed out",
    "auto_find_batch_size": "set {forwarded}",
    "average_tokens_across_devices": "the loss is the mean over the tokens of the whole step, always",
    "center_rewards_coefficient": "set {section}.loss to centred, and {section}.centring_coefficient",
    "dataloader_drop_last": "the last step of an epoch takes what is left",
    "shuffle_dataset": "{section}.seed draws the order",
    "train_sampling_strategy": "{section}.seed draws the order, and examples of like length go together in a step",
    "completion_only_loss": "the loss is always on completions only",
    "packing": "examples are not packed",
    "parallelism_config": "it is an object of accelerate's, which a file cannot hold",
    "padding_free": "it needs a kernel that is not installed, and DPO's own passes have no padding to speak of",
    "resume_from_checkpoint": "a training resumes by itself from its last checkpoint in the store",
    "save_strategy": "set {section}.save_steps",
}
"""Argument -> what to set in its place, or why it cannot be set."""
_SHARED_PASS = "it replaces the forward pass that prompts are shared in"
NOT_FOR_DPO = {
    "disable_dropout": "a completion is forwarded once for all of its pairs, which dropout would have differ",
    "ld_alpha": "it cuts a completion's log-probability at the length of its partner, which stored ones do not know",
    "precompute_ref_log_probs": "the reference's log-probabilities are computed once, always",
    "router_aux_loss_coef": "the router's balance is not a pair's",
    "sync_ref_model": "the reference's log-probabilities are computed once",
    "use_liger_kernel": _SHARED_PASS,
}
"""Arguments of TRL's `DPOConfig` that grouped DPO cannot take, and why."""
NOT_FOR = {
    "dpo": NOT_FOR_DPO,
    "reward_model": {
        "liger_kernel_config": _SHARED_PASS,
        "pad_to_multiple_of": "rows of like length go together, and are padded to the longest of them",
        "torch_compile": _SHARED_PASS,
        "use_liger_kernel": _SHARED_PASS,
    },
}
"""Section -> arguments that TRL's trainer reads and ours cannot take, and why."""
DIVERGENCES = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")
_NOTHING = "nothing here reads it; check its spelling"


def why_refused(section: str, name: str, extra: Mapping[str, Any], losses: tuple[str, ...] = ()) -> str | None:
    """Return why an argument of a section's `extra` cannot be set, or None where it can.

    Args:
        section: `sft`, `reward_model`, `dpo` or `rloo`.
        name: The argument.
        extra: All arguments.
        losses: DPO's losses.
    """
    if name not in EVERY_TRAINER | OWN[section]:
        forwarded = f"{section}.{'micro_batch_size' if section == 'rloo' else 'tokens_per_batch'}"
        reasons = SET_INSTEAD | NOT_FOR.get(section, {})
        return reasons.get(name, _NOTHING).format(section=section, forwarded=forwarded)
    if (needed := NEEDS.get(name)) is not None and extra.get(needed) in _UNSET:
        return f"it does nothing without {section}.extra.{needed}: set both, or neither"
    return _why_not_with(name, extra, losses) if section == "dpo" else None


def _why_not_with(name: str, extra: Mapping[str, Any], losses: tuple[str, ...]) -> str | None:
    """Return why an argument of DPO does not go with the losses, or None where it does."""
    readers, allowed = READ_BY.get(name, losses), GOES_WITH.get(name, losses)
    if not set(losses) & set(readers):
        return f"dpo.loss_type = {losses[0]!r} does not read it; {', '.join(readers)} do"
    if wrong := sorted(set(losses) - set(allowed)):
        return f"it has no meaning for dpo.loss_type = {wrong[0]!r}, which does not read it; {', '.join(allowed)} do"
    if name == "f_alpha_divergence_coef" and extra.get("f_divergence_type") != "alpha_divergence":
        return "it does nothing without dpo.extra.f_divergence_type = alpha_divergence"
    if name == "f_divergence_type" and extra[name] not in DIVERGENCES:
        return f"{extra[name]!r} must be one of {', '.join(DIVERGENCES)}"
    return None
