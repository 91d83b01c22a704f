"""The figures of a comparison: frontier, differences, sweeps, and how the trainings went."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tasks.comparison.best_of_n import best_of_n
from tasks.comparison.differences import Difference
from tasks.comparison.frontier import Band, band
from tasks.comparison.outcome import Comparison, Verdict, at_same_kl, over_reference
from tasks.comparison.sweeps import GAP_AXIS, Point, Sweep
from tasks.comparison.trainings import ACCURACY, MARGIN, along_training, gap_densities
from tasks.report.blocks import Plot
from tasks.report.intervals import Curves, bands, forest, whiskers

ONE_PLACE = "; arms of one gap stand at one place, so that what tells them apart is noise"


def frontier(comparison: Comparison) -> Plot:
    """Return reward against KL, an arm a line, with best of n beside them."""
    found = {arm: band([each.curve for each in own]) for arm, own in comparison.results.items()}
    first = next(iter(comparison.results.values()))
    found["best of n from sft"] = band([best_of_n(each.reference_proxy, each.reference_rewards) for each in first])
    caption = "Reward against KL along the trainings, mean and 95% over seeds"
    mark = (comparison.at_kl, "compared here")
    return bands(_curves(found), "KL from sft (nats a completion)", "reward", caption, mark)


def differences(found: Sequence[Verdict]) -> Iterator[Plot]:
    """Yield the difference of each pair of arms: of reward at equal KL, and of wins."""
    rows = [(f"{each.arm} / {each.other}", *each.at_kl[:3]) for each in found if each.at_kl is not None]
    if rows := [row for row in rows if np.isfinite(row[2])]:
        yield forest(rows, "difference of reward at equal KL", "Each pair of arms: the first less the second")
    rows = [(f"{each.arm} / {each.other}", *each.wins[:3]) for each in found if np.isfinite(each.wins.low)]
    if rows:
        yield forest(rows, "win rate less one half", "Each pair of arms: wins of the first's last model")


def swept(comparison: Comparison, sweep: Sweep) -> Iterator[Plot]:
    """Yield reward at the common KL, and win rate, against the setting of a sweep; nothing without two arms."""
    rewards = {arm: at_same_kl(comparison, arm) for arm in comparison.results}
    rates = {arm: _win_rate(over_reference(own)) for arm, own in comparison.results.items()}
    note = ONE_PLACE if sweep.axis == GAP_AXIS else ""
    for measured, what, over in (
        (rewards, f"reward at KL {comparison.at_kl:.2g}", "seeds"),
        (rates, "win rate over sft", "prompts and seeds"),
    ):
        series = {name: _points(points, measured) for name, points in sweep.series.items()}
        if series := {name: own for name, own in series.items() if own[0].size > 1}:
            yield whiskers(series, sweep.axis, what, f"{what[0].upper()}{what[1:]}, mean and 95% over {over}{note}")


def trainings(comparison: Comparison) -> Iterator[Plot]:
    """Yield accuracy and margin along the trainings, and the density of reward gaps, of arms that have such."""
    for metric, unit, caption in (
        (ACCURACY, "share of pairs", "Pairs of a step that the policy ranks right, mean over seeds"),
        (MARGIN, "nats", "Margin of a step's pairs, mean over seeds"),
    ):
        found = {arm: along_training(own, metric) for arm, own in comparison.results.items()}
        if known := {arm: own for arm, own in found.items() if own is not None}:
            yield bands(_curves(known), "share of the training", unit, caption)
    if densities := gap_densities(comparison.results):
        caption = "Density of the reward gaps of the pairs that are trained on, mean over seeds"
        yield bands(_curves(densities), "reward gap", "density", caption)


def _points(
    points: Sequence[Point], measured: Mapping[str, Difference | None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return place, mean, low and high of the arms that have a figure."""
    rows = [(each.at, *told[:3]) for each in points if (told := measured.get(each.arm)) is not None]
    at, mean, low, high = np.array(rows, np.float64).reshape(-1, 4).T
    return at, mean, low, high


def _win_rate(wins: Difference) -> Difference:
    return wins._replace(mean=wins.mean + 0.5, low=wins.low + 0.5, high=wins.high + 0.5)


def _curves(found: dict[str, Band]) -> Curves:
    return {arm: (each.at, each.mean, each.low, each.high) for arm, each in found.items()}
