"""Figures of benchmarks as tables that people read: a row a figure, a column a policy. Pure text."""

import math
from collections.abc import Sequence

from tasks.benchmarks import harness
from tasks.benchmarks.figures import Figure
from tasks.benchmarks.outcomes import stored_figures
from tasks.pipeline.pages import markdown_table
from tasks.store.artifacts import Artifact

Row = tuple[str, ...]


def figure_rows(name: str, figures: Sequence[Figure]) -> tuple[Row, list[Row]]:
    """Return the head and the rows of the table of one benchmark."""
    policies = list(dict.fromkeys(each.policy for each in figures))
    found = {(each.figure, each.policy): each for each in figures}
    rows = []
    for label in dict.fromkeys(each.figure for each in figures):
        own = [found.get((label, policy)) for policy in policies]
        first = own[0] if name == harness.NAME else None
        count = max(each.rows for each in own if each is not None)
        rows.append((label, *(_cell(each, first) for each in own), f"{count:,}"))
    return (name, *policies, "of"), rows


def benchmarks_lines(artifact: Artifact) -> list[str]:
    """Return the figures of a stage's output as Markdown, for Prefect's UI."""
    figures = stored_figures(artifact)
    names = dict.fromkeys(each.benchmark for each in figures)
    parts = [markdown_table(*figure_rows(name, [each for each in figures if each.benchmark == name])) for name in names]
    notes = [f"- {name}: {note}" for name, own in artifact.stats["notes"].items() for note in own]
    return [line for part in parts for line in part] + notes


def digits_of(figure: str, value: float) -> int:
    """Return the decimals that a figure is written with."""
    return 1 if "%" in figure or abs(value) >= 100 else 3


def _cell(figure: Figure | None, first: Figure | None) -> str:
    """Return a figure with its interval and, where a first one is given and another, the difference from it."""
    if figure is None or math.isnan(figure.value):
        return "-"
    digits = digits_of(figure.figure, figure.value)
    interval = "" if math.isnan(figure.low) else f"  [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"
    text = f"{figure.value:.{digits}f}{interval}"
    if first is None or first.policy == figure.policy:
        return text
    return f"{text}  ({figure.value - first.value:+.{digits}f})"
