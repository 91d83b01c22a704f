"""What models demand of a row: their chat template renders it, their context has room for it, its turns end once.

Asked of every row when it is loaded, in a dry run too, so that one row does not end a run hours later.
"""

import contextlib
import dataclasses
import itertools
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.config.errors import ConfigurationError
from tasks.data.conversations import BadRow, Messages
from tasks.data.records import Record
from tasks.lm.context import context_length
from tasks.lm.tokens import encode, tokens_around
from tasks.lm.turns import ends_within, render, without_end
from tasks.models.loading import model_folder, model_tokenizer, trusts_remote_code
from tasks.models.weights import embedding_rows
from tasks.store.artifacts import Artifact

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AsRead = Callable[[Record], Record]
"""Returns a row as the models read it; raises `BadRow` where a model cannot read it."""
COMPLETIONS = ("completion", "chosen", "rejected")


class Reader(NamedTuple):
    """A model that will read conversations."""

    name: str
    """What messages call it, such as `policy`."""
    model: Artifact
    """Stored, or as a dry run lays it out."""
    reads_answers: bool = True
    """Whether it reads whole conversations, the end of the last turn included, as reward models do."""


def as_read_by(readers: list[Reader], max_new_tokens: int | None = None) -> AsRead:
    """Return a function that returns a row as the models read it, and refuses a row that a model cannot read.

    Ends of a turn that are spelled out at the end of a completion are taken away: each model ends turns in its own way.

    Args:
        readers: Models; a model that is `NOTHING` reads nothing.
        max_new_tokens: Tokens that a completion may have, for rows that are prompts; None: rows with completions.

    Raises:
        ConfigurationError: `max_new_tokens` leaves no room for a prompt.
    """
    given = [reader for reader in readers if reader.model]
    different = [list(own) for _, own in itertools.groupby(given, key=lambda reader: reader.model)]
    checks = [_prompt_check(own, max_new_tokens) for own in different]
    known = [_id_check(own[0]) for own in different]
    trims = [_trim(own[0], max_new_tokens is None) for own in different]

    def as_read(record: Record) -> Record:
        for check in checks:
            check(record.messages)
        for trim in trims:
            record = trim(record)
        for check_ids in known:
            check_ids(record)
        return record

    return as_read


def _prompt_check(readers: list[Reader], max_new_tokens: int | None) -> Callable[[Messages], None]:
    """Return a function that refuses a prompt that a model's chat template or context does not allow.

    Args:
        readers: Those of one model, so that a prompt is rendered and tokenized once for all of them.
        max_new_tokens: As for `as_read_by`.
    """
    name, tokenizer = readers[0].name, model_tokenizer(readers[0].model)
    rooms = [] if max_new_tokens is None else [_room(reader, tokenizer, max_new_tokens) for reader in readers]
    left_out = _left_out(tokenizer)

    def check(messages: Messages) -> None:
        roles = [message["role"] for message in messages]
        if what := next((what for what, role, most in left_out if roles.count(role) > most), None):
            raise BadRow(f"with {what}, which the {name}'s chat template leaves out")
        try:
            text = render(tokenizer, messages, prompt=True)
        except ConfigurationError as error:
            why = textwrap.shorten(str(error.__cause__), 120)
            raise BadRow(f"refused by the {name}'s chat template ({why})") from error
        tokens = len(encode(tokenizer, text)) if rooms else 0
        for reader, room in zip(readers, rooms, strict=False):
            if tokens > room:
                raise BadRow(f"longer than the {reader.name}'s context less max_new_tokens ({room} tokens)")

    return check


def _room(reader: Reader, tokenizer: "PreTrainedTokenizerBase", max_new_tokens: int) -> int:
    """Return how many tokens of the model's context there are for a prompt."""
    room = context_length(model_folder(reader.model, weights=False)) - max_new_tokens
    room -= tokens_around(tokenizer) if reader.reads_answers else 0
    if room < 1:
        raise ConfigurationError(
            f"sampling.max_new_tokens = {max_new_tokens} leaves no token of the {reader.name}'s context for a "
            f"prompt: lower it by more than {-room}"
        )
    return room


def _left_out(tokenizer: "PreTrainedTokenizerBase") -> list[tuple[str, str, int]]:
    """Return what a chat template passes over in silence: with its role, and how many messages of that it renders."""
    zebra, question = "A zebra", {"role": "user", "content": "Hm"}
    cases = [
        ("a system message", "system", 0, [{"role": "system", "content": zebra}, question]),
        ("earlier turns", "user", 1, [question | {"content": zebra}, question | {"role": "assistant"}, question]),
    ]
    found = []
    for what, role, most, messages in cases:
        with contextlib.suppress(ConfigurationError):  # it says so itself, row by row
            if zebra.lower() not in render(tokenizer, messages, prompt=True).lower():
                found.append((what, role, most))
    return found


def _id_check(reader: Reader) -> Callable[[Record], None]:
    """Return a function that refuses a row with a token that the model has no embedding for."""
    tokenizer, folder = model_tokenizer(reader.model), model_folder(reader.model, weights=False)
    rows = embedding_rows(folder, trusts_remote_code(reader.model))
    complete = max(tokenizer.get_vocab().values()) < rows

    def check(record: Record) -> None:
        texts = [message["content"] for message in record.messages]
        texts += [text for name in COMPLETIONS if (text := getattr(record, name)) is not None]
        if not complete and any(id_ >= rows for text in texts for id_ in encode(tokenizer, text)):
            raise BadRow(f"with a token that the {reader.name} has no embedding for")

    return check


def _trim(reader: Reader, has_completions: bool) -> AsRead:
    """Return a function that takes spelled ends of a turn from the end of a row's completions.

    Args:
        reader: The model.
        has_completions: Whether the rows are there for their completions, so that a bad completion makes a bad row.
    """
    tokenizer = model_tokenizer(reader.model)

    def trim(record: Record) -> Record:
        given = {name: text for name in COMPLETIONS if (text := getattr(record, name)) is not None}
        texts: dict[str, Any] = {name: without_end(tokenizer, text) for name, text in given.items()}
        if has_completions:
            _check_completions(texts, any(ends_within(tokenizer, text) for text in texts.values()))
        return dataclasses.replace(record, **texts) if texts != given else record

    return trim


def _check_completions(texts: dict[str, str], end_within: bool) -> None:
    if empty := next((name for name, text in texts.items() if not text.strip()), None):
        raise BadRow(f"empty {empty}")
    if end_within:
        raise BadRow("a completion with an end of a turn within")
    if "rejected" in texts and texts["chosen"] == texts["rejected"]:
        raise BadRow("chosen equals rejected")
