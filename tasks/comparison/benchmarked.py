"""What benchmarks found of each arm's last model: a row a figure, a column an arm."""

import math
from collections.abc import Sequence

from tasks.benchmarks.figures import Figure
from tasks.benchmarks.tables import digits_of
from tasks.comparison.differences import of_seeds
from tasks.comparison.outcome import Comparison, interval
from tasks.comparison.results import ALIGNED, Result
from tasks.report.blocks import Table

Label = tuple[str, str]
"""Benchmark and figure."""


def benchmarks_table(comparison: Comparison) -> Table | None:
    """Return the means over seeds; None where no run was measured by benchmarks.

    The column `sft` is the policy that the arms begin with, where all begin with the same one.
    """
    every = [result for own in comparison.results.values() for result in own]
    labels = dict.fromkeys(_label(figure) for result in every for figure in result.benchmarks)
    if not labels:
        return None
    rows = []
    for label in labels:
        cells = [_cell(label, _values(own, label, ALIGNED)) for own in comparison.results.values()]
        rows.append((": ".join(label), _cell(label, _shared(every, label)), *cells))
    return Table(("benchmark", "sft", *comparison.results), rows)


def _values(results: Sequence[Result], label: Label, policy: str) -> list[float]:
    """Return a figure of a policy under each seed that has it."""
    found = (figure for result in results for figure in result.benchmarks)
    return [
        each.value for each in found if _label(each) == label and each.policy == policy and not math.isnan(each.value)
    ]


def _shared(results: Sequence[Result], label: Label) -> list[float]:
    """Return a figure of the policy that all arms begin with, once a seed; nothing where they begin with others."""
    seeds = dict.fromkeys(each.seed for each in results)
    found = [{*_values([each for each in results if each.seed == seed], label, "sft")} for seed in seeds]
    return [] if any(len(own) != 1 for own in found) else [value for own in found for value in own]


def _cell(label: Label, values: Sequence[float]) -> str:
    """Return the mean with its interval over seeds; of equal values, the value alone."""
    if not values:
        return "-"
    digits = digits_of(label[1], values[0])
    return f"{values[0]:.{digits}f}" if len({*values}) == 1 else interval(of_seeds(values), digits=digits)


def _label(figure: Figure) -> Label:
    return figure.benchmark, figure.figure
