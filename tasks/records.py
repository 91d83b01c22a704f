r"""Recognise the columns of a data file and parse its rows into a prompt with its completions. Pure: reads no file.

Known forms: `messages`; `prompt` with `completion` or `chosen` and `rejected`; `chosen` and `rejected` transcripts of
Anthropic's HH ("\n\nHuman: ... \n\nAssistant: ..."); `chosen` and `rejected` message lists that share their prompt.
"""

import hashlib
import json
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tasks.errors import ConfigurationError

Role = Literal["prompts", "demonstrations", "preferences"]
Messages = list[dict[str, str]]

_ROLES = ("system", "user", "assistant")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
# Each role is served by any one of these sets of columns.
_SERVES: dict[Role, tuple[tuple[str, ...], ...]] = {
    "prompts": (("messages",), ("prompt",), ("chosen",)),
    "demonstrations": (("messages",), ("prompt", "completion"), ("prompt", "chosen"), ("chosen",)),
    "preferences": (("prompt", "chosen", "rejected"), ("chosen", "rejected")),
}


class _Side(NamedTuple):
    """One side of a row, its texts unchecked yet."""

    prompt: Messages
    completion: Any
    shared: Messages
    """What both sides of a pair must have: the prompt before turns are merged."""


@dataclass(frozen=True)
class Record:
    """A parsed row: a prompt that ends with a user turn, and what its role needs beside it."""

    messages: Messages
    """The prompt, each message with `role` (system, user or assistant) and `content`."""
    completion: str | None = None
    """The demonstrated completion; for prompts the human one, where the row has it."""
    chosen: str | None = None
    rejected: str | None = None
    margin: float | None = None
    metadata: str | None = None
    """Canonical JSON of the plain values in the columns `metadata` and `id`."""


class BadRow(ValueError):
    """A row that cannot be used; `reason` is a short, stable string to count it under."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


def recognise(columns: Collection[str], role: Role, where: str) -> None:
    """Check that columns can serve a role.

    Args:
        columns: The names that the data has.
        role: What the data is for.
        where: The data's name, for the message.

    Raises:
        ConfigurationError: No known form fits; names the columns that would do.
    """
    if any(set(form) <= set(columns) for form in _SERVES[role]):
        return
    would_do = "; or ".join(" and ".join(f"`{name}`" for name in form) for form in _SERVES[role])
    raise ConfigurationError(
        f"{where} cannot serve as {role}: it has the columns {', '.join(sorted(columns)) or '(none)'}, "
        f"and {role} need {would_do}. Rename the columns, or name other data"
    )


def parse_record(values: Mapping[str, Any], role: Role) -> Record:
    """Return what a row holds for a role.

    A row with several faults is counted once, by the first of: its structure, prompts that differ, its completions,
    equal completions, the text of its prompt. So a pair is counted by what is wrong with it as a pair.

    Raises:
        BadRow: The row cannot be used.
    """
    if role == "preferences":
        return _parse_preference(values)
    column = next((name for name in ("completion", "chosen") if values.get(name) is not None), "completion")
    if values.get("messages") is not None:
        column, side = "completion", _split_messages(_messages(values["messages"]))
    else:
        side = _split(values, column)
    completion = None
    try:
        completion = _completion(side, column)
    except BadRow:
        if role == "demonstrations":
            raise
    return Record(_checked(side.prompt), completion, metadata=_metadata(values))


def prompt_id(messages: Iterable[Mapping[str, Any]]) -> str:
    """Return the sha256 of a conversation's canonical JSON, of which only `role` and `content` count.

    Raises:
        UnicodeEncodeError: A text has lone surrogates.
    """
    return hashlib.sha256(_canonical([_bare(message) for message in messages]).encode()).hexdigest()


def _parse_preference(values: Mapping[str, Any]) -> Record:
    """Return the pair of a row."""
    sides = {column: _split(values, column) for column in ("chosen", "rejected")}
    if sides["chosen"].shared != sides["rejected"].shared:
        raise BadRow("prompts differ")
    chosen, rejected = (_completion(side, column) for column, side in sides.items())
    if chosen == rejected:
        raise BadRow("chosen equals rejected")
    messages, margin = _checked(sides["chosen"].prompt), _margin(values.get("margin"))
    return Record(messages, chosen=chosen, rejected=rejected, margin=margin, metadata=_metadata(values))


def _split(values: Mapping[str, Any], column: str) -> _Side:
    """Return the prompt and the raw completion that a row has for a column."""
    if "prompt" in values or column == "completion":
        prompt = _prompt(values.get("prompt"))
        return _Side(prompt, values.get(column), shared=prompt)
    value = values.get(column)
    if isinstance(value, list):
        return _split_messages(_messages(value))
    if not isinstance(value, str):
        raise BadRow(f"missing {column}" if value is None else f"{column} is not text")
    return _split_transcript(value)


def _split_messages(messages: Messages) -> _Side:
    """Split a conversation before its last message, if that is the assistant's."""
    if messages and messages[-1]["role"] == "assistant":
        return _Side(messages[:-1], messages[-1]["content"], shared=messages[:-1])
    return _Side(messages, None, shared=messages)


def _split_transcript(text: str) -> _Side:
    """Split an HH transcript before its last turn, if that is the assistant's, and merge the turns of one speaker."""
    before, *parts = _TURN.split(text)
    if not parts:
        raise BadRow("missing prompt")
    if before.strip():
        raise BadRow("text before the first turn")
    turns = [
        {"role": _SPEAKERS[speaker], "content": content.removeprefix(" ")}
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    raw, merged = _split_messages(turns), _split_messages(_merge(turns))
    # Prompts are compared unmerged: where one side alone ends in two assistant turns, its completion answers more than
    # the other's. An empty last turn stays an empty completion, whatever was said before it.
    is_empty = raw.completion is not None and not raw.completion.strip()
    return merged._replace(completion="" if is_empty else merged.completion, shared=raw.prompt)


def _merge(turns: Messages) -> Messages:
    """Join consecutive turns of one role with a blank line: chat templates demand that roles alternate."""
    merged: Messages = []
    for turn in turns:
        if merged and merged[-1]["role"] == turn["role"]:
            merged[-1] = {"role": turn["role"], "content": f"{merged[-1]['content']}\n\n{turn['content']}"}
        else:
            merged.append(turn)
    return merged


def _prompt(value: Any) -> Messages:
    """Return the messages of a `prompt` column."""
    if isinstance(value, list) and value:
        return _messages(value)
    return [{"role": "user", "content": _text("" if value == [] else value, "prompt")}]


def _messages(value: Any) -> Messages:
    """Return role and raw content of a list of messages."""
    if not isinstance(value, list) or not all(
        isinstance(message, Mapping) and message.get("role") in _ROLES and "content" in message for message in value
    ):
        raise BadRow("bad message")
    return [_bare(message) for message in value]


def _checked(messages: Messages) -> Messages:
    """Return a prompt whose messages all have text and whose last one is the user's."""
    if not messages or messages[-1]["role"] != "user":
        raise BadRow("no user turn")
    for message in messages:
        _text(message["content"], "message content")
    return messages


def _completion(side: _Side, column: str) -> str:
    """Return the text of a completion: a text, or messages that end with it and repeat nothing but the prompt."""
    value = side.completion
    if isinstance(value, list):
        given = _split_messages(_messages(value))
        if given.prompt and given.completion is not None and given.prompt != side.prompt:
            raise BadRow("prompts differ")
        value = given.completion
    return _text(value, column)


def _text(value: Any, name: str) -> str:
    """Return a text that has more than white space."""
    if value is None:
        raise BadRow(f"missing {name}")
    if not isinstance(value, str):
        raise BadRow(f"{name} is not text")
    if not value.strip():
        raise BadRow(f"empty {name}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow("text is not valid Unicode") from error
    return value


def _margin(value: Any) -> float | None:
    """Return a finite margin; NaN fails the comparison."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise BadRow("margin is not a finite number")
    return float(value)


def _metadata(values: Mapping[str, Any]) -> str | None:
    """Return the canonical JSON of the row's plain `metadata` and `id`."""
    plain = {name: values[name] for name in ("metadata", "id") if isinstance(values.get(name), str | int)}
    return _text(_canonical(plain), "metadata") if plain else None


def _bare(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what counts of a message."""
    return {"role": message["role"], "content": message["content"]}


def _canonical(value: Any) -> str:
    """Return the JSON that is the same on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
