"""Feedback on sampled completions: rows that name two of them by their ids are resolved into their texts at once."""

from collections.abc import Iterator
from typing import NamedTuple

from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.data.columns import Values
from tasks.data.conversations import BadRow, checked_text
from tasks.data.prompt_table import PromptTable
from tasks.data.records import Record, parse_record
from tasks.data.sources import read_rows
from tasks.data.tally import Tally
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.slices import read_ahead, read_slices

COLUMNS = ("prompt_id", "chosen_id", "rejected_id", "annotator")


class Feedback(NamedTuple):
    """A row: whose judgement it is, and which two completions it is about."""

    prompt_id: str
    chosen_id: int
    rejected_id: int
    annotator: str


class Sampled(NamedTuple):
    """What feedback is about: completions, and the prompts that they were drawn for."""

    store: Store
    completions: Artifact
    prompts: Artifact


def read_feedback(source: DataSource, sampled: Sampled, tally: Tally) -> Iterator[tuple[str, Record]]:
    """Yield place and content of each good row, as the preference that it is, and count the others.

    Raises:
        ConfigurationError: There is no such source, it cannot be read, or it lacks a column.
        DamagedArtifactError: The completions or the prompts cannot be read.
    """
    rows = list(_read_rows(source, tally))
    prompts, texts = PromptTable(sampled.prompts), _texts(sampled, {row.prompt_id for _, row in rows})
    for where, row in rows:
        try:
            yield where, _resolved(row, prompts, texts)
        except BadRow as error:
            tally.drop(error.reason, where)


def _read_rows(source: DataSource, tally: Tally) -> Iterator[tuple[str, Feedback]]:
    for where, values in read_rows(source):
        if tally.total == 0 and (missing := [name for name in COLUMNS if name not in values]):
            raise ConfigurationError(
                f"{where} has no column {', '.join(missing)}: feedback on sampled completions needs "
                f"{', '.join(COLUMNS)}; leave --completions out for pairs of texts"
            )
        tally.total += 1
        tally.unread |= {name for name, value in values.items() if value is not None} - {*COLUMNS}
        try:
            yield where, _parse(values)
        except BadRow as error:
            tally.drop(error.reason, where)


def _parse(values: Values) -> Feedback:
    chosen, rejected = (_number(values, name) for name in ("chosen_id", "rejected_id"))
    if chosen == rejected:
        raise BadRow("chosen_id equals rejected_id")
    id_, annotator = (checked_text(values.get(name), name) for name in ("prompt_id", "annotator"))
    return Feedback(id_, chosen, rejected, annotator)


def _number(values: Values, name: str) -> int:
    number = values.get(name)
    if isinstance(number, bool) or not isinstance(number, int):
        raise BadRow(f"{name} is no whole number")
    return number


def _texts(sampled: Sampled, prompt_ids: set[str]) -> dict[tuple[str, int], str]:
    """Return the texts of the prompts' completions by prompt_id and completion_id."""
    columns = ["prompt_id", "completion_id", "completion"]
    tables = read_ahead(read_slices(sampled.store, sampled.completions), columns)
    rows = (row for table in tables for row in table.to_pylist() if row["prompt_id"] in prompt_ids)
    return {(row["prompt_id"], row["completion_id"]): row["completion"] for row in rows}


def _resolved(row: Feedback, prompts: PromptTable, texts: dict[tuple[str, int], str]) -> Record:
    """Return a row as a preference, checked as one that a file spells out."""
    if row.prompt_id not in prompts:
        raise BadRow("unknown prompt_id")
    ids = {"chosen": row.chosen_id, "rejected": row.rejected_id}
    for side, number in ids.items():
        if (row.prompt_id, number) not in texts:
            raise BadRow(f"unknown {side}_id")
    # As turns, since a text that looks like a transcript would be taken apart.
    sides = {side: [{"role": "assistant", "content": texts[row.prompt_id, number]}] for side, number in ids.items()}
    values = {"prompt": prompts[row.prompt_id], **sides, "annotator": row.annotator}
    return parse_record(values, "preferences")
