"""Parse the rows of data into prompts with completions. Pure: reads no file.

Which columns are read, and in which order, is in `tasks.data.columns`; how conversations are spelled in
`tasks.data.conversations`.
"""

import hashlib
import json
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.config.errors import ConfigurationError
from tasks.data.columns import (
    ANNOTATOR,
    COMPLETIONS,
    CONVERSATIONS,
    PLAIN,
    PROMPTS,
    Given,
    Role,
    Values,
    check_completion,
    check_scores,
    check_supported,
    finish_prompt,
    first_column,
    given_prompt,
    read_side,
)
from tasks.data.conversations import BadRow, Messages, checked_text, read_split, split_messages
from tasks.data.transcripts import is_rendered

# Each role is served by any one of these forms: one column out of each group.
_SERVES: dict[Role, tuple[tuple[tuple[str, ...], ...], ...]] = {
    "prompts": ((CONVERSATIONS,), (tuple(PROMPTS),), (("chosen",),)),
    "demonstrations": ((CONVERSATIONS,), (tuple(PROMPTS), COMPLETIONS), (("chosen",),)),
    "preferences": ((("chosen",), ("rejected",)),),
}


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
    annotator: str | None = None
    """Who prefers the chosen side of a pair, where the row says so."""


def recognise(columns: Collection[str], role: Role, where: str) -> None:
    """Check that columns can serve a role.

    Args:
        columns: The names that the data has.
        role: What the data is for.
        where: The data's name, for the message.

    Raises:
        ConfigurationError: No known form fits; names the columns that would do.
    """
    if any(all(set(group) & set(columns) for group in form) for form in _SERVES[role]):
        return
    would_do = "; or ".join(" beside ".join(_alternatives(group) for group in form) for form in _SERVES[role])
    would_do += ", or another form that docs/data.md lists" if role == "preferences" else ""
    raise ConfigurationError(
        f"{where} cannot serve as {role}: it has the columns {', '.join(sorted(columns)) or '(none)'}"
        f"{_other_form(columns) if role == 'preferences' else ''}, "
        f"and {role} need {would_do}. Rename the columns, or name other data"
    )


def _other_form(columns: Collection[str]) -> str:
    """Return what columns mean that hold preferences in a form which is not read from files; "" for others."""
    if "label" in columns and not {*COMPLETIONS}.isdisjoint(columns):
        return ": `label` beside one completion is KTO's form, whose columns are `prompt`, `completion` and `label`"
    if {"chosen_id", "rejected_id"} <= {*columns}:
        return ": chosen_id and rejected_id name sampled completions: add them with `--completions URI` of theirs"
    return ""


def parse_record(values: Values, role: Role) -> Record:
    """Return what a row holds for a role.

    A row with several faults is counted once, by the first of: its structure, prompts that differ, its completions,
    equal completions, the text of its prompt. So a pair is counted by what is wrong with it as a pair.

    Raises:
        BadRow: The row cannot be used.
    """
    check_supported(values)
    return _parse_preference(values) if role == "preferences" else _parse_example(values, role)


def prompt_id(messages: Iterable[Mapping[str, Any]]) -> str:
    """Return the sha256 of a conversation's canonical JSON: each message's `role` and `content`.

    Raises:
        UnicodeEncodeError: A text has lone surrogates.
    """
    bare = [{"role": message["role"], "content": message["content"]} for message in messages]
    return hashlib.sha256(_canonical(bare).encode()).hexdigest()


def _parse_preference(values: Values) -> Record:
    """Return the pair of a row."""
    given = given_prompt(values, (*PROMPTS, *CONVERSATIONS))
    sides = {column: read_side(given, values.get(column), column) for column in ("chosen", "rejected")}
    if sides["chosen"].shared != sides["rejected"].shared:
        raise BadRow("prompts differ")
    chosen, rejected = (_checked_completion(side.completion, column) for column, side in sides.items())
    if chosen == rejected:
        raise BadRow("chosen equals rejected")
    check_scores(values)
    messages, margin = finish_prompt(values, given, sides["chosen"].prompt), _margin(values.get("margin"))
    more = {"metadata": _metadata(values), "annotator": _annotator(values)}
    return Record(messages, chosen=chosen, rejected=rejected, margin=margin, **more)


def _parse_example(values: Values, role: Role) -> Record:
    """Return a prompt, and the completion that a demonstration must have."""
    given = given_prompt(values, (*CONVERSATIONS, *PROMPTS))
    column = first_column(values, (*COMPLETIONS, "chosen")) or "completion"
    if given and given.column in CONVERSATIONS and given.messages and given.messages[-1]["role"] == "assistant":
        column, side = given.column, split_messages(given.messages)
    else:
        side = read_side(given, _readable(values.get(column), given, role), column)
    completion = None
    try:
        text = _checked_completion(side.completion, "completion" if column in CONVERSATIONS else column)
        check_completion(values, column, text)
        completion = text
    except BadRow:
        if role == "demonstrations":
            raise
    return Record(finish_prompt(values, given, side.prompt), completion, metadata=_metadata(values))


def _checked_completion(value: Any, column: str) -> str:
    """Return the text of a completion, which the models' own templates end."""
    text = checked_text(value, column)
    if is_rendered(text):
        raise BadRow(f"{column} is rendered by a chat template")
    return text


def _readable(value: Any, given: Given | None, role: Role) -> Any:
    """Return a completion; for prompts, which need no completion, None where it is malformed."""
    if role == "prompts" and given is not None:
        try:
            read_split(value)
        except BadRow:
            return None
    return value


def _margin(value: Any) -> float | None:
    """Return a finite margin; NaN fails the comparison."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise BadRow("margin is not a finite number")
    return float(value)


def _metadata(values: Values) -> str | None:
    """Return the canonical JSON of the row's plain `metadata` and `id`."""
    plain = {name: values[name] for name in PLAIN if isinstance(values.get(name), str | int)}
    return checked_text(_canonical(plain), "metadata") if plain else None


def _annotator(values: Values) -> str | None:
    """Return who has preferred, a name or a number; None for nobody, and for what is neither."""
    name = values.get(ANNOTATOR)
    text = str(name).strip() if isinstance(name, str | int) else ""
    return checked_text(text, ANNOTATOR) if text else None


def _alternatives(columns: tuple[str, ...]) -> str:
    """Return names as text: "`a`, `b` or `c`"."""
    names = [f"`{name}`" for name in columns]
    return " or ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])


def _canonical(value: Any) -> str:
    """Return the JSON that is the same on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
