"""What a report is made of: sections of text, tables, figures and samples, whatever they are written as."""

from collections.abc import Sequence
from typing import NamedTuple


class Text(NamedTuple):
    """A paragraph."""

    text: str


class Table(NamedTuple):
    """A table; a cell that begins with `*` is marked."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""


class Plot(NamedTuple):
    """A figure."""

    svg: str
    alt: str
    """What the figure shows, for whoever does not see it."""
    caption: str


class Side(NamedTuple):
    """What one policy said."""

    policy: str
    completion: str
    reward: str
    """What it got."""
    measure: str = "reward"
    """By what, as it stands before the reward."""


class Sample(NamedTuple):
    """A prompt, and what each policy said to it."""

    prompt: Sequence[tuple[str, str]]
    """Role and content of each message."""
    sides: Sequence[Side]
    note: str


class Samples(NamedTuple):
    """Samples to leaf through."""

    title: str
    samples: Sequence[Sample]


class Alert(NamedTuple):
    """A verdict of a monitor."""

    level: str
    text: str


class Code(NamedTuple):
    """Text as it is, such as a configuration or a command."""

    text: str
    caption: str


Block = Text | Table | Plot | Samples | Alert | Code


class Section(NamedTuple):
    """A question that a person asks, and what answers it."""

    title: str
    blocks: list[Block]


def number(value: float | None, digits: int = 3) -> str:
    """Write a figure; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    """Write a share in per cent; a dash where there is none."""
    return "-" if value is None else f"{value:.1%}"


def kind(block: Block) -> str:
    """Return the name of a block's kind, by which a template chooses how to write it."""
    return type(block).__name__.lower()
