"""A set read: its prompts, the completions of each, and what is known of them. Writes nothing."""

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from tasks.config.errors import ConfigurationError
from tasks.data.columns import Role, Values
from tasks.data.conversations import BadRow, Messages
from tasks.data.records import Record, parse_record, prompt_id, recognise
from tasks.data.sources import read_rows
from tasks.data.tally import Tally, unread_columns
from tasks.pipeline.progress import track
from tasks.quality.formats import FORMATS
from tasks.quality.settings import PairSet, SampleSet

T = TypeVar("T")
ALL = "all"
"""The category of a whole set."""


class Prompt(NamedTuple):
    """A prompt as the first of its rows has it."""

    messages: Messages
    metadata: str | None


class Pair(NamedTuple):
    """Two completions of a prompt, by their places among its completions."""

    prompt_id: str
    chosen: int
    rejected: int
    category: str


@dataclass
class Answers:
    """Completions of prompts."""

    source: str
    """What they were read from."""
    prompts: dict[str, Prompt] = field(default_factory=dict)
    completions: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """prompt_id -> its completions, numbered from 0."""
    read: dict[str, Any] = field(default_factory=dict)
    """Counts of the rows that were read and left out."""

    def add(self, record: Record, completion: str) -> tuple[str, int]:
        """Take a completion; return the id of its prompt, and its number there."""
        id_ = prompt_id(record.messages)
        self.prompts.setdefault(id_, Prompt(record.messages, record.metadata))
        self.completions[id_].append(completion)
        return id_, len(self.completions[id_]) - 1

    def add_once(self, record: Record, completion: str) -> int:
        """Take a completion that the prompt may have already; return its number."""
        known = self.completions.get(prompt_id(record.messages), [])
        return known.index(completion) if completion in known else self.add(record, completion)[1]


@dataclass
class PairedAnswers(Answers):
    """Completions that are the sides of pairs; a text is held once a prompt."""

    pairs: list[Pair] = field(default_factory=list)


@dataclass
class SampledAnswers(Answers):
    """Several completions a prompt; equal texts are several samples."""

    gold: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """prompt_id -> the gold reward of each completion; nothing where another reward stands for it."""


def check_first_row(name: str, chosen: PairSet | SampleSet) -> None:
    """Refuse a set that is not there, or lacks a column, by its first row.

    Raises:
        ConfigurationError: Names the set, and what is wrong.
    """
    with _naming(name):
        where, values = next(read_rows(chosen.source))
        _check_columns(chosen, values, where)


def read_answers(name: str, chosen: PairSet | SampleSet) -> "PairedAnswers | SampledAnswers":
    """Return a set of either kind.

    Raises:
        ConfigurationError: It cannot be read, lacks a column, has too many bad rows, or none that is good.
    """
    with _naming(name):
        return read_pairs(chosen) if isinstance(chosen, PairSet) else read_samples(chosen)


def read_pairs(chosen: PairSet) -> PairedAnswers:
    """Return the pairs of a set; raises as `read_answers`."""
    written, found, column = FORMATS[chosen.format], PairedAnswers(chosen.source.path), _category_column(chosen)

    def parse(values: Values) -> tuple[Record, str]:
        record = parse_record(written.as_preference(values), "preferences")
        return record, ALL if column is None else _category(values, column)

    for record, category in _good_rows(chosen, found, parse):
        assert record.chosen is not None and record.rejected is not None  # noqa: PT018 - a preference has both
        chosen_id, rejected_id = (found.add_once(record, text) for text in (record.chosen, record.rejected))
        found.pairs.append(Pair(prompt_id(record.messages), chosen_id, rejected_id, category))
    return found


def read_samples(chosen: SampleSet) -> SampledAnswers:
    """Return the samples of a set; raises as `read_answers`, and where no prompt has several completions."""
    found, column = SampledAnswers(chosen.source.path), chosen.gold_column

    def parse(values: Values) -> tuple[Record, float | None]:
        gold = None if column is None else _finite(values.get(column), column)
        return parse_record(values, "demonstrations"), gold

    for record, gold in _good_rows(chosen, found, parse):
        assert record.completion is not None  # a demonstration has one
        id_, _ = found.add(record, record.completion)
        if gold is not None:
            found.gold[id_].append(gold)
    if max(map(len, found.completions.values())) < 2:
        raise ConfigurationError(
            f"{found.source} has one completion a prompt, so that nothing is to be ranked: a set of samples has several"
        )
    return found


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Name the set in what is wrong with it."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"set {name}: {error}") from error


def _good_rows(chosen: PairSet | SampleSet, found: Answers, parse: Callable[[Values], T]) -> Iterator[T]:
    """Yield the good rows of a set, parsed, and note in `found` how many were read and left out."""
    tally = Tally(chosen.source.path, chosen.max_bad_fraction)
    yield from islice(_parsed_rows(chosen, tally, parse), chosen.max_rows)
    tally.check()
    if tally.bad.total() == tally.total:
        raise ConfigurationError(f"{chosen.source.path} has no usable row: {tally.stats()}")
    found.read = tally.stats()


def _parsed_rows(chosen: PairSet | SampleSet, tally: Tally, parse: Callable[[Values], T]) -> Iterator[T]:
    needed = _needed(chosen)
    for where, values in track(f"reading {chosen.source.path}", read_rows(chosen.source)):
        if not tally.total:
            _check_columns(chosen, values, where)
        tally.total += 1
        tally.unread |= unread_columns(values, _role(chosen)) - needed
        try:
            yield parse(values)
        except BadRow as error:
            tally.drop(error.reason, where)


def _needed(chosen: PairSet | SampleSet) -> set[str]:
    """Return the columns that every row must have, beside what `tasks.data` needs."""
    if isinstance(chosen, SampleSet):
        return {chosen.gold_column} if chosen.gold_column else set()
    column = _category_column(chosen)
    return {*FORMATS[chosen.format].columns} | ({column} if column else set())


def _category_column(chosen: PairSet) -> str | None:
    return chosen.category or FORMATS[chosen.format].category


def _check_columns(chosen: PairSet | SampleSet, values: Values, where: str) -> None:
    """Refuse data without the columns of its format.

    Raises:
        ConfigurationError: Names the missing ones.
    """
    if missing := sorted(_needed(chosen) - {*values}):
        raise ConfigurationError(
            f"{where} has no column {', '.join(missing)}, but {', '.join(sorted(values))}: name another format, column "
            "or file"
        )
    if not (isinstance(chosen, PairSet) and FORMATS[chosen.format].columns):
        recognise(values.keys(), _role(chosen), where)


def _role(chosen: PairSet | SampleSet) -> Role:
    return "preferences" if isinstance(chosen, PairSet) else "demonstrations"


def _category(values: Values, column: str) -> str:
    value = values.get(column)
    if not isinstance(value, str | int) or not str(value).strip() or value == ALL:
        raise BadRow(f"{column} is no category")
    return str(value)


def _finite(value: Any, column: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRow(f"{column} is no finite number")
    return float(value)
