"""A completion as it was drawn: its text and its ids, and where generated ids are cut."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tasks.config.errors import ConfigurationError
from tasks.models.tokenizer_checks import MIXED_TEXT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


SHORT_TEXT = MIXED_TEXT[:40]
"""Text after which an engine looks at its logits, whether they are numbers."""


class Sample(NamedTuple):
    """One completion: its text, its ids as sampled, and why it ended (`stop` or `length`).

    The token that ended it is among the ids and not in the text.
    """

    completion: str
    token_ids: list[int]
    finish_reason: str


def check_number(logprob: float, dtype: str) -> None:
    """Refuse logits that are no numbers: from them engines draw token 0, which reads as nothing, again and again.

    Args:
        logprob: Of a token.
        dtype: Type of the policy's weights.

    Raises:
        ConfigurationError: It is NaN.
    """
    if math.isnan(logprob):
        raise ConfigurationError(
            f"with sampling.dtype = {dtype} the policy's logits are NaN, so nothing can be drawn: its values are too "
            "large for float16 (take bfloat16 or float32), or its configuration or weights are broken"
        )


def cut(
    tokenizer: "PreTrainedTokenizerBase", prompt: list[int], ids: list[int], end_ids: set[int], stop: Sequence[str]
) -> Sample:
    """Return the completion within ids that were generated after a prompt.

    The completion's ids go up to and including the token that ends it, or that completes a stop string; its text is
    what the ids before that token, or the text before the stop string, add to the prompt's text.

    Args:
        tokenizer: The policy's.
        prompt: The prompt's ids.
        ids: What was generated, padding included.
        end_ids: Tokens that end a completion.
        stop: Strings that end a completion.
    """

    def read(ids: list[int]) -> str:  # a cleaned text, "it 's" made "it's", is not what was drawn
        return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    before = len(read(prompt))

    def text_of(kept: list[int]) -> str:
        return read(prompt + kept)[before:]

    end = next((place for place, token in enumerate(ids) if token in end_ids), None)
    kept = ids if end is None else ids[: end + 1]
    text = text_of(ids[:end])
    places = [place for string in stop if (place := text.find(string)) >= 0]
    if not places:
        return Sample(text, kept, "length" if end is None else "stop")
    needed = next(n for n in range(1, len(kept) + 1) if any(string in text_of(kept[:n]) for string in stop))
    return Sample(text[: min(places)], kept[:needed], "stop")
