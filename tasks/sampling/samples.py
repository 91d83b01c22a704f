"""A completion as it was drawn: its text and its ids, and where generated ids are cut."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tasks.config.errors import ConfigurationError
from tasks.models.tokenizer_checks import MIXED_TEXT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


BLOCK = 32
"""Ids whose text is read at once where a stop string is looked for."""
CUT = "\ufffd"
"""Stands in a text for a character of which some bytes are missing."""
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

    end = next((place for place, token in enumerate(ids) if token in end_ids), None)
    kept = ids if end is None else ids[: end + 1]
    text = read(prompt + ids[:end])[len(read(prompt)) :]
    places = [place for string in stop if (place := text.find(string)) >= 0]
    if not places:
        return Sample(text, kept, "length" if end is None else "stop")
    return Sample(text[: min(places)], kept[: ids_until(read, prompt, kept, stop)], "stop")


def ids_until(read: Callable[[list[int]], str], prompt: list[int], ids: list[int], stop: Sequence[str]) -> int:
    """Return how many of the ids that follow a prompt it takes until their text has a stop string: all, where none has.

    The time is linear in the ids: each is read with a few before it, and what was read is searched again only as far as
    a stop string may begin there. Where no character is cut, what follows does not change the text before it.

    Args:
        read: Returns the text of ids.
        prompt: What the text of the first ids is read after.
        ids: What was generated.
        stop: Strings, none of them empty.
    """
    every, end, longest = prompt + ids, len(prompt), max(map(len, stop))
    begin, tail = 0, ""  # of the ids that the next ones are read after; of the text, where a match may begin

    def text_until(until: int) -> str:
        return tail + read(every[begin:until])[known:]

    def has_stop(text: str) -> bool:
        return any(string in text for string in stop)

    for until in [*range(end + BLOCK, len(every), BLOCK), len(every)]:
        known = len(read(every[begin:end]))
        text = text_until(until)
        if has_stop(text):
            return next(n for n in range(end + 1, until + 1) if has_stop(text_until(n))) - len(prompt)
        if len(text) > len(tail) and not text.endswith(CUT):
            begin, end, tail = end, until, text[max(0, len(text) + 1 - longest) :]
    return len(ids)
