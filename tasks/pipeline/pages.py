"""A stage's page in Prefect's UI. Pure text."""

from collections.abc import Iterable, Mapping
from typing import Any

from tasks.store.artifacts import Artifact, Provenance

BAR = 40
"""Characters of the longest bar of a histogram."""


def stage_page(provenance: Provenance, artifact: Artifact, lines: list[str]) -> str:
    """Return a stage's page in Markdown: what it read, what it wrote, the given lines, and its settings."""
    settings = (
        (f"{section}.{name}", value) for section, fields in provenance.config.items() for name, value in _items(fields)
    )
    return "\n".join(
        [
            f"# {provenance.stage}",
            "",
            f"Wrote **{artifact.kind}**, {artifact.rows:,} rows, to `{artifact.uri}`",
            "",
            *markdown_table(("read", "digest"), provenance.inputs.items()),
            *lines,
            *markdown_table(("setting", "value"), ((name, f"`{value}`") for name, value in settings)),
            f"digest `{artifact.digest}`, key `{provenance.key}`",
        ]
    )


def stats_lines(artifact: Artifact) -> list[str]:
    """Return an artifact's counts, and its histogram where it has one, as Markdown."""
    stats = dict(artifact.stats)
    histogram = stats.pop("histogram", None)
    lines = markdown_table(("count", "value"), ((name, _value(value)) for name, value in stats.items()))
    return [*lines, *(_histogram(histogram) if histogram else [])]


def markdown_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table in Markdown; none where it has no rows."""
    body = [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *body, ""] if body else []


def _cell(value: str) -> str:
    """Keep a value within its cell of a Markdown table; an indent becomes a dot, since the UI trims white space.

    Prefect's UI shows entities as they are written, so a bar is escaped.
    """
    text = str(value)
    return ("· " if text.startswith(" ") else "") + " ".join(text.split()).replace("|", r"\|")


def _histogram(histogram: Mapping[str, list[float]]) -> list[str]:
    counts, edges = histogram["counts"], histogram["edges"]
    top = max(counts, default=0) or 1
    bars = [
        f"{low:10.3f} .. {high:10.3f} {int(count):8,} {'#' * round(BAR * count / top)}"
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
    return ["Rewards:", "```", *bars, "```", ""]


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _items(fields: Any) -> Iterable[tuple[str, Any]]:
    return fields.items() if isinstance(fields, Mapping) else [("value", fields)]
