"""What benchmarks came to, in the store: a table of figures, one of answers, and what a reader has to know."""

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tasks.benchmarks.figures import Answered, Figure, Outcome
from tasks.store.artifacts import Artifact
from tasks.store.parquet import read_file
from tasks.store.schemas import SCHEMAS

FIGURES, ANSWERS = "benchmarks.parquet", "answers.parquet"


def figures_table(outcomes: Mapping[str, Outcome]) -> pa.Table:
    """Return a row a figure."""
    rows = [_without_nan(each._asdict()) for outcome in outcomes.values() for each in outcome.figures]
    return pa.Table.from_pylist(rows, SCHEMAS["benchmarks"])


def answers_table(outcomes: Mapping[str, Outcome]) -> pa.Table:
    """Return a row an answer and measure."""
    rows = [
        {"benchmark": name, **_without_nan(each._asdict())}
        for name, outcome in outcomes.items()
        for each in outcome.answers
    ]
    return pa.Table.from_pylist(rows, SCHEMAS["benchmark_answers"])


def read_outcomes(benchmarks: Artifact) -> dict[str, Outcome]:
    """Return what each benchmark of the stage `measure_policies` came to."""
    found = {name: Outcome([], [], list(notes)) for name, notes in benchmarks.stats["notes"].items()}
    for figure in stored_figures(benchmarks):
        found[figure.benchmark].figures.append(figure)
    for row in read_file(benchmarks, ANSWERS, "benchmark_answers").to_pylist():
        found[row.pop("benchmark")].answers.append(Answered(**_with_nan(row, "value")))
    return found


def stored_figures(benchmarks: Artifact) -> list[Figure]:
    """Return the figures alone."""
    rows = read_file(benchmarks, FIGURES, "benchmarks").to_pylist()
    return [Figure(**_with_nan(row, "value", "low", "high")) for row in rows]


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def _with_nan(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return row | {name: math.nan for name in names if row[name] is None}
