"""The good rows of a data file, counts of what happens to the others, and the limit on bad ones."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.data.columns import ANNOTATOR, PLAIN, READ, Role, Values
from tasks.data.conversations import BadRow
from tasks.data.records import Record, parse_record, recognise
from tasks.data.sources import read_rows, unread_files
from tasks.pipeline.progress import log, track

Parsed = tuple[str, Record | str]
"""Place and content of a row; of a bad row, what is wrong with it."""
_NAMES = 20
"""Most names in a message."""
_MESSAGE_KEYS = {"role", "content", "from", "value", "tool_calls", "function_call"}


@dataclass
class Tally:
    """Counts what happens to the rows of some data, which messages call by its name."""

    name: str
    max_bad_fraction: float
    total: int = 0
    """What was read: prompts, demonstrations, comparisons."""
    rows: int = 0
    """The rows of the source that they were read from, where a row holds several, or a part of one."""
    kept: int = 0
    contradicting: int = 0
    """Pairs that are kept beside their opposites."""
    bad: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    """Columns that hold something and were not read."""
    names_unread: bool = True
    """Whether to name them in the log: once for data that are read twice."""

    def drop(self, reason: str, where: str) -> None:
        """Count a bad row."""
        self.bad[reason] += 1
        self.examples.setdefault(reason, where)

    def check(self) -> None:
        """Refuse data with too many bad rows.

        Raises:
            ConfigurationError: Names the reasons and the first row of each.
        """
        bad = self.bad.total()
        if bad > self.max_bad_fraction * self.total:
            reasons = "; ".join(f"{reason}: {n} (first {self.examples[reason]})" for reason, n in self.bad.items())
            raise ConfigurationError(
                f"{self.name}: {bad} of {self.total} rows are bad, more than max_bad_fraction = "
                f"{self.max_bad_fraction:g}: {reasons}. Mend the data or raise the fraction"
            )
        if self.unread and self.names_unread:
            log(f"{self.name}: columns not read: {', '.join(sorted(self.unread))}")
        if bad:
            log(f"{self.name}: left out {bad} bad rows of {self.total}: {dict(self.bad)}")

    def stats(self) -> dict[str, Any]:
        """Return the counts for the manifest."""
        own = {"contradicting": self.contradicting} if self.contradicting else {}
        return {"read": self.total, "bad": dict(self.bad), "left_out": dict(self.left_out), **own}


def read_records(
    source: DataSource, role: Role, tally: Tally, parsed: Iterable[Parsed] | None = None
) -> Iterator[tuple[str, Record]]:
    """Yield place and content of each good row, and count the others.

    Args:
        source: Where the rows are.
        role: What they are for.
        tally: Counts them.
        parsed: The rows as `parse_rows` yields them; None: they are parsed here.

    Raises:
        ConfigurationError: There is no such source, it cannot be read, or has none of the columns that the role needs.
    """
    rows = parse_rows(source, role, tally.unread) if parsed is None else parsed
    for where, found in track(f"reading {source.path}", rows):
        tally.total += 1
        if isinstance(found, str):
            tally.drop(found, where)
        else:
            yield where, found


def parse_rows(source: DataSource, role: Role, unread: set[str]) -> Iterator[Parsed]:
    """Yield the rows of a source, parsed for a role; `unread` takes the columns that hold something and are not read.

    Raises:
        ConfigurationError: As for `read_records`.
    """
    for number, (where, values) in enumerate(read_rows(source)):
        if number == 0:
            recognise(values.keys(), role, where)
        unread |= unread_columns(values, role)
        try:
            yield where, parse_record(values, role)
        except BadRow as error:
            yield where, error.reason


def log_unread_files(data: Iterable[DataSource | str | None]) -> None:
    """Name the files that are not read in the folders among some data, once for each folder."""
    for source in dict.fromkeys(given for given in data if isinstance(given, DataSource)):
        if names := unread_files(source):
            more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
            log(f"{source.path}: files not read: {', '.join(names[:_NAMES])}{more}")


def unread_columns(values: Values, role: Role) -> set[str]:
    """Return the columns, and the keys of messages, that hold a value which is not read for a role."""
    unread = {name for name, value in values.items() if value is not None} - READ[role]
    kept = (*PLAIN, ANNOTATOR) if role == "preferences" else PLAIN
    unread -= {name for name in kept if isinstance(values.get(name), str | int)}
    for name in values.keys() & READ[role]:
        messages = values[name] if isinstance(values[name], list) else [values[name]]
        keys = {key for one in messages if isinstance(one, Mapping) for key in one if one[key] is not None}
        unread |= {f"{name}[].{key}" for key in keys - _MESSAGE_KEYS}
    return unread
