"""Graded completions of a prompt, and the pairs that they make."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from tasks.data.columns import Values
from tasks.data.conversations import BadRow, checked_text


class Graded(NamedTuple):
    """A completion and how good it is."""

    completion: Any
    """Its text or, in whatever spelling, a conversation that ends with it."""
    grade: float
    """The higher, the better."""


class Ranking(NamedTuple):
    """Completions of one prompt."""

    asked: Values
    """The columns that give the prompt, as `tasks.data.columns` reads them."""
    completions: Sequence[Graded]


class Format(NamedTuple):
    """A form in which data sets have preferences."""

    name: str
    columns: frozenset[str]
    """Columns that every row has, by which the form is told."""
    read: Callable[[Values, str], Iterator[Ranking]]
    """Yields the rankings of a row, by one of the dimensions. Raises `BadRow`."""
    dimensions: tuple[str, ...] = ()
    """The judgements of which one counts."""
    default: str = ""
    """The one that counts where a source names none; "": it must name one."""
    has_margin: bool = True
    """Whether a difference of grades says how strongly a completion is preferred."""
    is_spread: bool = False
    """Whether a row holds one completion, so that those of a prompt are gathered over all rows."""
    is_told: bool = True
    """Whether the columns tell the form; else a source must name it."""
    also_reads: frozenset[str] = frozenset()


def pairs_of(ranking: Ranking, has_margin: bool) -> Iterator[dict[str, Any] | None]:
    """Yield each pair of completions, the better one chosen, as a row of preferences; None for two of equal grade.

    The margin is the difference of the grades.
    """
    graded = sorted(ranking.completions, key=lambda each: -each.grade)  # stable
    for chosen, rejected in combinations(graded, 2):
        margin = chosen.grade - rejected.grade
        sides = {"chosen": chosen.completion, "rejected": rejected.completion}
        yield {**ranking.asked, **sides, "margin": margin if has_margin else None} if margin else None


def asks(text: Any, column: str) -> dict[str, Any]:
    """Return a text as a prompt of one user turn, whatever the text looks like.

    Raises:
        BadRow: It is no text, or an empty one.
    """
    return {"prompt": [{"role": "user", "content": checked_text(text, column)}]}


def says(text: Any) -> list[dict[str, Any]]:
    """Return a text as a completion, whatever the text looks like."""
    return [{"role": "assistant", "content": text}]


def number_in(values: Values, column: str) -> float:
    """Return the finite number of a column.

    Raises:
        BadRow: It is none.
    """
    value = values.get(column)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRow(f"{column} is not a finite number")
    return float(value)


def listed(values: Values, column: str) -> list[Values]:
    """Return the objects in a column that holds a list of them.

    Raises:
        BadRow: It does not.
    """
    value = values.get(column)
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise BadRow(f"{column} is no list of objects")
    return value


def side_in(values: Values, column: str) -> int:
    """Return the number, 0 or 1, of the side that a column prefers.

    Raises:
        BadRow: It is neither.
    """
    if (value := values.get(column)) not in (0, 1):
        raise BadRow(f"{column} is neither 0 nor 1")
    return int(value)
