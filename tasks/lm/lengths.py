"""Which sequences may be forwarded together where a model tells their lengths apart, and not only their positions.

Longrope and dynamic NTK choose their frequencies by the longest sequence of a forward pass. An attention window, or a
chunk, says nothing of how it counts until a sequence is longer. Decided by the configuration alone.
"""

import math
from typing import Any, NamedTuple

from transformers import PreTrainedConfig

STATIC_ROPES = {"default", "linear", "llama3", "proportional", "yarn"}
"""Kinds of rotary embeddings that depend on the position alone."""
THRESHOLDS = (
    *("sliding_window", "sliding_window_size", "attention_chunk_size", "attention_window", "local_attention"),
    *("window_size", "floor_scale"),
)
"""Settings, in tokens, from which on a model attends otherwise than below."""
MOST_PADDING = 2
"""A prompt that is computed with others is padded to at most so many times its own length."""


class Lengths(NamedTuple):
    """Which sequences may be forwarded together, by their tokens."""

    switch: int | None = None
    """Sequences of up to so many tokens may be forwarded together; None: all may."""
    each: bool = False
    """Beyond the switch: True: every length has frequencies of its own; False: all lengths have the same."""
    shared_up_to: int | None = None
    """Longest sequence that may share its prompt; None: all may."""

    def kind(self, tokens: int) -> int:
        """Return a number that is equal for sequences that may be forwarded together."""
        if self.switch is None or tokens <= self.switch:
            return 0
        return tokens if self.each else 1

    def shares(self, prompt: int, completion: int) -> bool:
        """Return whether a completion may share its prompt's forward pass with others, however both are padded.

        Args:
            prompt: Tokens of the prompt.
            completion: Tokens of the completion.
        """
        return self.shared_up_to is None or MOST_PADDING * prompt + completion <= self.shared_up_to


ANY_LENGTH = Lengths()
"""Lengths of a model that reads positions alone, whatever the length of the sequence."""


def rotary_lengths(config: PreTrainedConfig) -> Lengths:
    """Return how the rotary embeddings of a configuration depend on the length of a sequence.

    Args:
        config: The text model's.
    """
    longest = getattr(config, "max_position_embeddings", None)
    kinds = {_rope_kind(rope): rope for rope in _rope_settings(config)}
    if "longrope" in kinds:
        own = kinds["longrope"].get("original_max_position_embeddings")
        switch = own or getattr(config, "original_max_position_embeddings", None) or longest
    else:
        switch = longest if any("dynamic" in kind for kind in kinds) else None
    return Lengths(switch, any("dynamic" in kind for kind in kinds), switch)


def thresholds(config: PreTrainedConfig) -> list[int]:
    """Return the numbers of tokens, ascending, from which on a model may attend otherwise than below.

    Args:
        config: The text model's.
    """
    found = {getattr(config, name, None) for name in THRESHOLDS}
    for rope in _rope_settings(config):
        if _rope_kind(rope) not in STATIC_ROPES or "llama_4_scaling_beta" in rope:
            own = rope.get("original_max_position_embeddings")
            found |= {own, getattr(config, "original_max_position_embeddings", None)}
    numbers = {each for value in found for each in (value if isinstance(value, list | tuple) else [value])}
    longest = getattr(config, "max_position_embeddings", None) or math.inf
    return sorted(number for number in numbers if isinstance(number, int) and 0 < number < longest)


def _rope_settings(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """Return the settings of the rotary embeddings: one, one a type of layer, or none."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return [each for each in rope.values() if isinstance(each, dict)] or [rope]


def _rope_kind(rope: dict[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")
