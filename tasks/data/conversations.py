r"""Read conversations in the spellings in which data sets share them. Pure: reads no file.

| spelling | example |
|---|---|
| messages | `[{"role": "user", "content": "Hi"}, ...]`; content may be a list of text parts; other keys are ignored |
| ShareGPT | `[{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]` |
| one message | `{"role": "assistant", "content": "Hello"}`, `{"content": "Hello"}` |
| JSON text | any of these, encoded once more as a string |
| transcript | "\n\nHuman: Hi\n\nAssistant: Hello" (Anthropic's HH); also "User:", and single line breaks |
| history | `[["Hi", "Hello"], ...]`, or messages |
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tasks.data.transcripts import asks_late, find_turns, hh_turns, is_rendered, merge_turns

Messages = list[dict[str, str]]

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "bard", "bing"), "assistant"),
}
_PYTHON_TEXT = re.compile(r"""\s*\[\{'(role|content|from|value)':""")


class BadRow(ValueError):
    """A row that cannot be used; `reason` is a short, stable string to count it under."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


class Split(NamedTuple):
    """A conversation cut before its last turn where that is the assistant's. Texts are unchecked."""

    prompt: Messages
    completion: Any
    shared: Messages
    """What both sides of a pair must have: the prompt before turns are merged."""


def read_messages(value: Any) -> Messages | None:
    """Return the messages of a value, less empty system messages; None where it is plain text, a number or nothing.

    Raises:
        BadRow: The value is a list or an object, but not of messages.
    """
    if isinstance(value, str):
        _refuse_python_text(value)
        if (decoded := _decoded(value)) is None:
            turns = find_turns(value)
            return None if turns is None else merge_turns(turns)
        value = decoded
    if isinstance(value, Mapping):
        value = [_with_role(value, "assistant")]
    if not isinstance(value, list):
        return None
    while len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    messages = [_message(message) for message in value]
    return [one for one in messages if one["role"] != "system" or not _is_blank_text(one["content"])]


def read_prompt(value: Any, column: str) -> Messages:
    """Return the conversation of a column that holds prompts; plain text is one user turn.

    Raises:
        BadRow: There is no text, a chat template has rendered it, or its turns cannot be told.
    """
    if isinstance(value, Mapping):
        value = [_with_role(value, "user")]
    if value and (messages := read_messages(value)) is not None:
        if isinstance(value, str) and messages[-1]["role"] == "assistant" and is_blank(messages[-1]["content"]):
            messages = messages[:-1]  # "\n\nAssistant:" asks for the completion
        return messages
    text = checked_text("" if value == [] else value, column)
    if is_rendered(text):
        raise BadRow(f"{column} is rendered by a chat template")
    if asks_late(text):
        raise BadRow("text before the first turn")
    if text.startswith("Human:"):
        raise BadRow(f"{column} opens with Human: and has no Assistant:")
    return [{"role": "user", "content": text}]


def read_split(value: Any) -> Split | None:
    """Return a conversation cut before its last turn where that is the assistant's; None where a value is plain text.

    Raises:
        BadRow: The value is a list or an object, but not of messages.
    """
    if isinstance(value, str) and _decoded(value) is None and (turns := find_turns(value)) is not None:
        return _split_turns(turns)
    messages = read_messages(value)
    return None if messages is None else split_messages(messages)


def read_transcript(text: str) -> Split:
    """Return a transcript of HH cut before its last turn where that is the assistant's.

    Raises:
        BadRow: The text has no turns, or other text before the first turn.
    """
    before, turns = hh_turns(text)
    if not turns:
        raise BadRow("missing prompt")
    if before.strip():
        raise BadRow("text before the first turn")
    return _split_turns(turns)


def read_history(value: Any) -> Messages:
    """Return the messages of earlier turns: given as messages, or as pairs of a question and its answer.

    Raises:
        BadRow: The value is neither.
    """
    if is_blank(value):
        return []
    if isinstance(value, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        return [
            {"role": role, "content": text}
            for pair in value
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
    messages = None if isinstance(value, Mapping) else read_messages(value)
    if messages is None:
        raise BadRow("history is not pairs of question and answer")
    return messages


def split_messages(messages: Messages) -> Split:
    """Return a conversation cut before its last message where that is the assistant's."""
    if messages and messages[-1]["role"] == "assistant":
        return Split(messages[:-1], messages[-1]["content"], shared=messages[:-1])
    return Split(messages, None, shared=messages)


def checked_text(value: Any, name: str) -> str:
    """Return a value that is text with more than white space.

    Raises:
        BadRow: The value is missing, empty, not text or not Unicode; names it by `name`.
    """
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


def is_blank(value: Any) -> bool:
    """Return whether a value says nothing: none, white space, or an empty list or object."""
    return value is None or _is_blank_text(value) or value in ([], {})


def _is_blank_text(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _with_role(message: Mapping[str, Any], role: str) -> dict[str, Any]:
    """Return a message that stands alone in its column, with the column's role where the message names none."""
    return {**message, "role": _first(message, ("role", "from")) or role}


def _message(message: Any) -> dict[str, Any]:
    """Return role and raw content of a message."""
    if not isinstance(message, Mapping):
        raise BadRow("bad message")
    role, content = (_first(message, names) for names in (("role", "from"), ("content", "value")))
    if not isinstance(role, str) or not {"content", "value"} & message.keys():
        raise BadRow("bad message")
    if role.strip().lower() not in _ROLES:
        raise BadRow("unknown role")
    if any(not is_blank(message.get(name)) for name in ("tool_calls", "function_call")):
        raise BadRow("tool calls are not supported")
    return {"role": _ROLES[role.strip().lower()], "content": _joined_parts(content)}


def _first(message: Mapping[str, Any], names: tuple[str, str]) -> Any:
    """Return the first value that is not null: columnar files fill the other spelling's keys with nulls."""
    return next((message[name] for name in names if message.get(name) is not None), None)


def _joined_parts(content: Any) -> Any:
    """Return the text of a list of text parts; anything else as it is."""
    if isinstance(content, list) and content:
        parts = [part if isinstance(part, Mapping) else {} for part in content]
        texts = [part["text"] for part in parts if part.get("type") == "text" and isinstance(part.get("text"), str)]
        if len(texts) == len(content):
            return "".join(texts)
    return content


def _decoded(text: str) -> Any:
    """Return the messages that a text encodes as JSON, or None."""
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    messages = value if isinstance(value, list) else [value]
    return value if messages and all(_is_message(one) for one in messages) else None


def _is_message(value: Any) -> bool:
    keys: list[set[str]] = [{"role", "content"}, {"from", "value"}]
    return isinstance(value, dict) and any(pair <= value.keys() for pair in keys)


def _refuse_python_text(text: str) -> None:
    if _PYTHON_TEXT.match(text):
        raise BadRow("messages are Python text, not JSON")


def _split_turns(turns: Messages) -> Split:
    """Split a transcript before its last turn, if that is the assistant's, and merge the turns of one speaker."""
    raw, merged = split_messages(turns), split_messages(merge_turns(turns))
    # Prompts are compared unmerged: where one side alone ends in two assistant turns, its completion answers more than
    # the other's. An empty last turn stays an empty completion, whatever was said before it.
    is_empty = raw.completion is not None and not raw.completion.strip()
    return merged._replace(completion="" if is_empty else merged.completion, shared=raw.prompt)
