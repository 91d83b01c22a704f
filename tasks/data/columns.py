"""Which columns of a row give its prompt and its completion. Pure: reads no file.

A row's prompt is in the first of these columns that says something; for preferences, the first line comes second.

| columns | hold |
|---|---|
| `messages`, `conversations`, `conversation` | a conversation; a last turn of the assistant is the completion |
| `prompt`, `instruction`, `question`, `query`, `input` | text, one user turn; or a conversation in any spelling |
| `input` or `context`, beside `instruction` | material that follows the instruction after a blank line |
| `history` | turns before the prompt's text |
| `system`, `system_prompt`, `system_message` | the system message of a conversation that has none, or has the same |
| none of them | `chosen` and `rejected` are whole conversations, which share their prompt |

A completion is in the first of `completion`, `response`, `output`, `answer`, `chosen`. Any of these may hold a whole
conversation, whose prompt then must be the row's or, where the row's is one user turn, begin or end with it.

Nothing is guessed. Another of these columns is redundant where its text is part of what is read; else the row is bad.
So are rows with tools or pictures, pairs whose scores say the opposite, and demonstrations with a KTO label. The
spellings of conversations are in `tasks.data.conversations`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from tasks.data.conversations import (
    BadRow,
    Messages,
    Split,
    checked_text,
    is_blank,
    read_history,
    read_messages,
    read_prompt,
    read_split,
    read_transcript,
)

Role = Literal["prompts", "demonstrations", "preferences"]
Values = Mapping[str, Any]

CONVERSATIONS = ("messages", "conversations", "conversation")
COMPLETIONS = ("completion", "response", "output", "answer")
PLAIN = ("metadata", "id")
"""Kept beside a prompt where they are texts or whole numbers."""
ANNOTATOR = "annotator"
"""Kept beside a preference that is added to a store, where it is a text or a whole number."""
_MATERIAL = ("input", "context")
_LABELS = ("label", "kto_tag")
_VERDICTS = {"true", "false", "good", "bad", "desirable", "undesirable", "chosen", "rejected"}
_SCORE = ("score_{}", "{}_score", "{}_rating", "{}-rating", "{}_reward")
SCORES = tuple((name.format("chosen"), name.format("rejected")) for name in _SCORE)
"""Columns that score the two sides of a pair."""
_SYSTEM = ("system", "system_prompt", "system_message")
_UNSUPPORTED = ("tools", "functions", "image", "images", "video", "videos", "audio", "audios")


class Given(NamedTuple):
    """The prompt that a column gives."""

    column: str
    messages: Messages
    is_transcript: bool
    """Whether it ends in "Assistant:", so that a space before the completion belongs to neither."""


def given_prompt(values: Values, columns: Iterable[str]) -> Given | None:
    """Return the prompt of the first column that says something, after the turns in `history`; None where all are null.

    Raises:
        BadRow: The column, or `history`, cannot be read.
    """
    if (column := first_column(values, columns)) is None:
        return None
    history = read_history(values.get("history"))
    if column in CONVERSATIONS:
        if history:
            raise BadRow(f"history beside {column}")
        if (messages := read_messages(values[column])) is None:
            raise BadRow("bad message")
        return Given(column, messages, is_transcript=False)
    messages = PROMPTS[column](values, column)
    is_transcript = isinstance(values[column], str) and values[column].rstrip().endswith("\nAssistant:")
    return Given(column, history + messages, is_transcript)


def first_column(values: Values, columns: Iterable[str]) -> str | None:
    """Return the first column that says something, else the first that is not null; None where all are null."""
    present = [name for name in columns if values.get(name) is not None]
    return next((name for name in present if not is_blank(values[name])), present[0] if present else None)


def read_side(given: Given | None, value: Any, column: str) -> Split:
    """Return the prompt and the raw completion of a column that may repeat the prompt.

    Args:
        given: The row's prompt, where another column gives it.
        value: The column's value.
        column: The column's name.

    Raises:
        BadRow: There is no prompt, or the column begins with another prompt than the given one.
    """
    own = read_split(value)
    if given is None:
        if own is None and not isinstance(value, str):
            missing = "missing prompt" if column in COMPLETIONS else f"missing {column}"
            raise BadRow(missing if value is None or column in COMPLETIONS else f"{column} is not text")
        return own or read_transcript(value)
    if own is not None and not own.prompt:
        return Split(given.messages, own.completion, shared=given.messages)
    if own is not None and own.completion is not None and _agree(given.messages, own.prompt):
        return own
    if own is None or _may_be_text(value):
        if given.is_transcript and isinstance(value, str):
            value = value.removeprefix(" ")
        return Split(given.messages, value, shared=given.messages)
    if own.completion is None:
        return Split(given.messages, None, shared=given.messages)
    raise BadRow("prompts differ")


def finish_prompt(values: Values, given: Given | None, messages: Messages) -> Messages:
    """Return a prompt with the row's system message.

    Raises:
        BadRow: The prompt does not end with a user turn, a turn has no text, or another column has another prompt.
    """
    if not messages or messages[-1]["role"] != "user":
        raise BadRow("no user turn")
    for message in messages:
        checked_text(message["content"], "message content")
    _check_rest(values, given.column if given else "chosen", messages)
    return _with_system(values, messages)


def check_completion(values: Values, column: str, text: str) -> None:
    """Refuse a demonstration where another column has another completion, or marks completions as good or bad.

    Raises:
        BadRow: Names the column.
    """
    for name in _LABELS:
        label = values.get(name)
        if label in (0, 1) or (isinstance(label, str) and label.strip().lower() in _VERDICTS):
            raise BadRow(f"{name} tells good completions from bad ones (KTO)")
    for name in COMPLETIONS:
        value = values.get(name)
        if name != column and isinstance(value, str) and value.strip() not in text:
            raise BadRow(f"{name} is not part of {column}")


def check_scores(values: Values) -> None:
    """Refuse a pair whose own columns score the chosen side below the rejected one.

    Raises:
        BadRow: Names the columns.
    """
    for chosen, rejected in SCORES:
        high, low = values.get(chosen), values.get(rejected)
        if isinstance(high, int | float) and isinstance(low, int | float) and high < low:
            raise BadRow(f"{chosen} is below {rejected}")


def check_supported(values: Values) -> None:
    """Refuse a row with tools or pictures: without them the row means something else.

    Raises:
        BadRow: Names the column.
    """
    for column in _UNSUPPORTED:
        if not is_blank(values.get(column)) and values[column] != "[]":
            raise BadRow(f"{column} not supported")


def _text(values: Values, column: str) -> Messages:
    """Return a column's conversation."""
    return read_prompt(values[column], column)


def _instruction(values: Values, column: str) -> Messages:
    """Return the instruction with its material after a blank line: one user turn."""
    text, material = values[column], first_column(values, _MATERIAL)
    if isinstance(text, str) and material and not is_blank(values[material]):
        text = f"{text}\n\n{checked_text(values[material], material)}"
    return read_prompt(text, column)


PROMPTS: dict[str, Callable[[Values, str], Messages]] = {
    "prompt": _text,
    "instruction": _instruction,
    "question": _text,
    "query": _text,
    "input": _text,
}

_READ_BY_ALL = {*CONVERSATIONS, *PROMPTS, *_MATERIAL, *_SYSTEM, *_UNSUPPORTED, "history", "chosen"}
READ: dict[Role, set[str]] = {
    "prompts": _READ_BY_ALL | {*COMPLETIONS, *_LABELS},
    "demonstrations": _READ_BY_ALL | {*COMPLETIONS, *_LABELS},
    "preferences": _READ_BY_ALL | {"rejected", "margin", *(name for pair in SCORES for name in pair)},
}
"""The columns that are read for each role, if only to see that they say the same."""


def _agree(given: Messages, whole: Messages) -> bool:
    """Return whether a given prompt is a whole conversation's prompt, or its first or last user turn."""
    given, whole = ([{**one, "content": _stripped(one["content"])} for one in turns] for turns in (given, whole))
    if given and given[-1]["role"] == "assistant":
        given = given[:-1]
    users = [turn for turn in whole if turn["role"] == "user"]
    return given == whole or given == whole[whole[0]["role"] == "system" :] or given in (users[:1], users[-1:])


def _may_be_text(value: Any) -> bool:
    """Return whether a transcript that does not fit may be a completion's text: a dialogue that was asked for."""
    return isinstance(value, str) and not value.startswith(("\n\n", "[", "{"))


def _check_rest(values: Values, column: str, messages: Messages) -> None:
    """Refuse a row where a column besides the prompt's asks for something that the prompt does not."""
    read = "\n".join(message["content"] for message in messages)
    for name in (*CONVERSATIONS, *PROMPTS, "context"):
        value = values.get(name)
        if is_blank(value) or name == column or not (isinstance(value, str) or name in CONVERSATIONS):
            continue
        asked = read_messages(value) or [{"role": "user", "content": str(value)}]
        if not all(str(_stripped(one["content"])) in read for one in asked if one["role"] == "user"):
            raise BadRow(f"{name} is not part of {column}")
    if column == "chosen" and not is_blank(values.get("history")):
        raise BadRow("history beside chosen")


def _with_system(values: Values, messages: Messages) -> Messages:
    """Put the row's system message before a conversation that has none."""
    given = [checked_text(values[name], name) for name in _SYSTEM if not is_blank(values.get(name))]
    texts: dict[str, str] = {text.strip(): text for text in given}
    if messages[0]["role"] == "system" and texts:
        texts[messages[0]["content"].strip()] = messages[0]["content"]
    if len(texts) > 1:
        raise BadRow("two system messages")
    if not texts or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": next(iter(texts.values()))}, *messages]


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value
