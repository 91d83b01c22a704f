"""Whether a training computes each prompt once for its completions, and which of them go through the model together.

Imports torch inside functions only.
"""

from typing import TYPE_CHECKING

from tasks.config.errors import ConfigurationError
from tasks.config.training import Training
from tasks.models.loading import device
from tasks.pipeline.progress import log

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.lm.lengths import Lengths


def plan_sharing(
    model: "PreTrainedModel", config: Training, reason: str | None = None
) -> tuple[bool, "Lengths | None"]:
    """Return whether each prompt is computed once for its completions, and what is forwarded together; log why not.

    Args:
        model: What is trained.
        config: The section of the training.
        reason: Why prompts cannot be shared, where that is known.

    Raises:
        ConfigurationError: The devices would forward sequences together that must not be.
    """
    from tasks.lm.lengths import rotary_lengths
    from tasks.lm.sharing import model_lengths, why_not_shared

    switch, section = rotary_lengths(model.config.get_text_config()).switch, config.section
    if _is_sharded(config):
        if switch is not None and config.max_length > switch:
            raise ConfigurationError(
                f"{section}.max_length = {config.max_length} must be at most {switch} with {section}.extra.fsdp or "
                "deepspeed: longer sequences have other rotary frequencies in this model, and one call would take both "
                "kinds"
            )
        reason, lengths = "the weights are spread over the devices, which must call the model alike", None
    elif config.extra.get("gradient_checkpointing"):
        reason, lengths = "gradient checkpointing keeps no keys and values", model_lengths(model, shared=False)
    else:
        reason = reason or why_not_shared(model.to(device()))
        lengths = model_lengths(model, shared=reason is None)
        if lengths.shared_up_to is not None and not lengths.shares(config.max_length, 0):
            reason = reason or f"{section}.max_length = {config.max_length} allows sequences that must not share theirs"
    if reason:
        log(f"each completion is forwarded once, with its prompt, since prompts cannot be shared: {reason}")
    else:
        log("each prompt is forwarded once for its completions, and each completion once for its pairs")
    return reason is None, lengths


def _is_sharded(config: Training) -> bool:
    """Tell whether the weights are spread over the devices, which must then call the model alike."""
    return bool(config.extra.get("fsdp") or config.extra.get("deepspeed"))
