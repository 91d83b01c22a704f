"""What benchmarks found of each arm, by hand."""

import math

from results import made

from tasks.benchmarks.figures import Figure
from tasks.comparison.benchmarked import benchmarks_table
from tasks.comparison.page import comparison_page


def figures(sft: float, aligned: float) -> list[Figure]:
    values = {"sft": sft, "aligned": aligned}
    return [Figure(name, "win_rate", "win rate (%)", value, 0.0, 100.0, 9) for name, value in values.items()]


def measured(arms: dict[str, list[tuple[float, float]]]):
    """Return a comparison whose runs were measured; of each arm, what sft and its policy got under each seed."""
    comparison = made(dict.fromkeys(arms, (1.0,)), seeds=2)
    results = {
        name: [each._replace(benchmarks=figures(*arms[name][each.seed])) for each in own]
        for name, own in comparison.results.items()
    }
    return comparison._replace(results=results)


def test_means_over_seeds_by_hand():
    table = benchmarks_table(measured({"a": [(40.0, 50.0), (40.0, 70.0)], "b": [(40.0, 50.0), (40.0, 50.0)]}))
    assert table.head == ("benchmark", "sft", "a", "b")
    # 60 +- 12.706 * 14.142 / sqrt(2)
    assert table.rows == [("win_rate: win rate (%)", "40.0", "60.0 [-67.1, 187.1]", "50.0")]


def test_arms_that_begin_with_other_policies_share_none():
    (row,) = benchmarks_table(measured({"a": [(40.0, 50.0)] * 2, "b": [(30.0, 50.0)] * 2})).rows
    assert row[1] == "-"


def test_a_figure_that_could_not_be_counted_is_left_out():
    (row,) = benchmarks_table(measured({"a": [(40.0, math.nan)] * 2, "b": [(40.0, 50.0)] * 2})).rows
    assert row[1:] == ("40.0", "-", "50.0")


def test_without_benchmarks_there_is_no_table():
    comparison = made({"a": (1.0,)})
    assert benchmarks_table(comparison) is None
    assert "on benchmarks" not in comparison_page("t", "store", {"": (comparison, [])}).decode()
