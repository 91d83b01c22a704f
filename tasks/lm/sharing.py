"""Whether a model's prompts can be shared, found out on random tokens and from its configuration.

Imports torch, so import it inside functions only.
"""

import inspect
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from tasks.lm.batches import Sequences
from tasks.lm.layout import by_completion, lay_out
from tasks.lm.lengths import Lengths, rotary_lengths, thresholds
from tasks.lm.prefix_forward import wanted_states
from tasks.pipeline.progress import log

TEST_WORK = {"cpu": 2e11, "cuda": 1e15}
"""Most parameters times tokens of one test, by device: some seconds."""
SHORT = ((5, 9), (3, 4, 11, 7))
"""Tokens of two prompts, and of the completions of the first, second, second and first."""


def why_not_shared(model: PreTrainedModel) -> str | None:
    """Return why a model's prompts can never be shared; None: they can, up to the length that `model_lengths` says."""
    backbone = model.base_model
    if backbone is model:
        return f"{type(model).__name__} does not say which of its parts is its body"
    if model.is_gradient_checkpointing:
        return "gradient checkpointing keeps no keys and values"
    if getattr(model, "_is_stateful", False):
        return f"{type(model).__name__} has a recurrent state"
    parameters = inspect.signature(backbone.forward).parameters
    if missing := {"position_ids", "past_key_values", "use_cache"} - parameters.keys():
        return f"{type(backbone).__name__} takes no {min(missing)}"
    with torch.no_grad():
        if backbone(input_ids=torch.tensor([[0, 0]], device=backbone.device), use_cache=True).past_key_values is None:
            return f"{type(backbone).__name__} keeps no keys and values"
    return _disagreement(model, *SHORT)


def model_lengths(model: PreTrainedModel, shared: bool) -> Lengths:
    """Return which sequences may be forwarded together, and log where prompts are shared up to some length only.

    Dynamic frequencies start anew at every forward pass from now on: they would otherwise remember the longest sequence
    of all earlier passes.

    Args:
        model: On its device.
        shared: Whether prompts are shared at all.
    """
    config = model.config.get_text_config()
    lengths = rotary_lengths(config)
    if lengths.each:
        _forget_the_longest(model)
    if not shared:
        return lengths
    reason = "a longer sequence has other rotary frequencies"
    for tokens in thresholds(config):
        if lengths.shared_up_to is not None and tokens >= lengths.shared_up_to:
            break
        if found := _why_not_beyond(model, tokens):
            lengths, reason = lengths._replace(shared_up_to=tokens - 1), found
            break
    if lengths.shared_up_to is not None:
        log(f"prompts are shared by sequences of up to {lengths.shared_up_to} tokens: {reason}")
    return lengths


def _why_not_beyond(model: PreTrainedModel, tokens: int) -> str | None:
    """Return why prompts cannot be shared by sequences that are longer than a threshold, or None where they can."""
    prompts, completions = (max(1, tokens - 2), tokens + 5, 7), (6, 5, tokens + 3, 9)
    forwarded = 2 * (sum(prompts) + sum(completions)) + 2 * max(prompts)
    if forwarded * sum(p.numel() for p in model.parameters()) > TEST_WORK[model.device.type]:
        return f"what its configuration says of {tokens} tokens is too long to test here"
    return _disagreement(model, prompts, completions)


def _disagreement(model: PreTrainedModel, prompts: Sequence[int], completions: Sequence[int]) -> str | None:
    """Return how the hidden states with and without shared prompts differ on random tokens, or None where they agree.

    Args:
        model: On its device.
        prompts: Tokens of each prompt.
        completions: Tokens of each of four completions: of the first, the second, the last and the last but one prompt.
    """
    backbone, vocabulary = model.base_model, model.config.get_text_config().vocab_size
    random = torch.Generator().manual_seed(0)
    given, continued = (
        [torch.randint(vocabulary, (length,), generator=random).tolist() for length in lengths]
        for lengths in (prompts, completions)
    )
    last = len(prompts) - 1
    sequences, states = Sequences(given, continued, (0, 1, last, last - 1)), []
    for shared in (True, False):
        batch = lay_out(sequences, shared).to(backbone.device)
        with torch.no_grad():
            states.append(by_completion(batch, wanted_states(backbone, batch).float()))
    apart = torch.stack([(ours - own).norm() / own.norm() for ours, own in zip(*states, strict=True)])
    bound = 1e-3 if backbone.dtype in (torch.float32, torch.float64) else 0.05
    if (apart < bound).all():  # NaN is not
        return None
    return f"{type(backbone).__name__}'s states come out differently ({apart.max():.1e})"


def _forget_the_longest(model: PreTrainedModel) -> None:
    """Have rotary embeddings whose frequencies grow with the longest sequence so far begin each pass as at first."""

    def restore(module: torch.nn.Module, *_: object) -> None:
        for name in [name for name, _ in module.named_buffers(recurse=False) if name.endswith("original_inv_freq")]:
            setattr(module, name.replace("original_", ""), getattr(module, name).clone())
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
            setattr(module, name, module.original_max_seq_len)

    for module in model.modules():
        if "dynamic" in str(getattr(module, "rope_type", "")) and hasattr(module, "original_max_seq_len"):
            module.register_forward_pre_hook(restore)
