"""What models demand of a conversation: their chat template renders it, and their context has room for it.

Asked of every row when it is loaded, in a dry run too, so that one row does not end a run hours later.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from tasks.artifacts import Artifact
from tasks.errors import ConfigurationError
from tasks.models import model_folder, model_tokenizer
from tasks.records import Messages
from tasks.tokens import context_length, encode_prompt, tokens_around

Misfit = Callable[[Messages], str | None]
"""Gives the reason why a conversation cannot be used, or None."""


class Reader(NamedTuple):
    """A model that will read conversations."""

    name: Literal["policy", "reward model"]
    model: Artifact
    """Stored, or as a dry run lays it out."""


def misfit(readers: list[Reader], max_new_tokens: int | None = None) -> Misfit:
    """Return a function that gives the reason why one of the models cannot read a conversation, or None.

    Args:
        readers: Models; those that are `NOTHING` read nothing.
        max_new_tokens: Tokens that a completion may have; None: only the template is asked.
    """
    reasons = [_misfit(reader, max_new_tokens) for reader in readers if reader.model]
    return lambda messages: next((why for reason in reasons if (why := reason(messages)) is not None), None)


def _misfit(reader: Reader, max_new_tokens: int | None) -> Misfit:
    tokenizer = model_tokenizer(reader.model)
    room: float = float("inf")
    if max_new_tokens is not None:
        room = context_length(model_folder(reader.model, weights=False)) - max_new_tokens
        if reader.name == "reward model":  # reads what follows a completion, too
            room -= tokens_around(tokenizer)

    def reason(messages: Messages) -> str | None:
        try:
            tokens = len(encode_prompt(tokenizer, messages))
        except ConfigurationError:
            return f"refused by the {reader.name}'s chat template"
        if tokens <= room:
            return None
        return f"longer than the {reader.name}'s context less max_new_tokens ({room:.0f} tokens)"

    return reason
