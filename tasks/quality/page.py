"""The page of judged rewards: tables that the console shows too, and figures."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tasks.quality.best_of import RANDOM, BestOf
from tasks.quality.found import Found
from tasks.report.blocks import Block, Plot, Section, Table, Text, number
from tasks.report.intervals import bands, forest
from tasks.report.page import render
from tasks.report.plots import reliability_diagram
from tasks.report.reward import NO_TAU

ACCURACY = (
    "Share of the pairs whose chosen side has the higher reward, a tie counting half, with its 95% interval (Wilson). "
    "A coin gets 0.5."
)
CALIBRATION = "A reward is calibrated at tau where it is right as often as sigma(reward gap / tau) says."
AGREEMENT = (
    "Rank correlations within a prompt, mean over the prompts where both rewards tell some completions apart, with a "
    "95% interval over prompts. The last row of a set is what no agreement looks like: a reward and itself, shuffled."
)
BEST_OF = (
    "Expected gold reward of the best of n completions by each reward, over every subset of n, and what that "
    "is above a completion at random, with a 95% interval over prompts. Nothing does better than the gold reward; a "
    "reward below `random` is worse than none. A completion without a reward is kept only where no other is there."
)
BIAS = (
    "Change of the reward where a completion is changed in this way alone, in standard deviations of the reward over "
    "the completions as they are, with a 95% interval over prompts. None of the changes makes an answer better."
)


def quality_page(found: Found, store: str) -> bytes:
    """Return the page as HTML."""
    names = ", ".join(str(row["reward"]) for row in found.rewards)
    conclusion = f"{len(found.rewards)} rewards ({names}) on {len(found.sets)} sets."
    return render("RS-DPO, the quality of rewards", "", store, conclusion, list(_sections(found)))


def tables(found: Found) -> Iterator[Table]:
    """Yield the tables, each under its caption."""
    if found.accuracy:
        yield accuracy_table(found)
    if found.sections:
        yield sections_table(found)
    if found.calibration:
        yield calibration_table(found)
    if found.agreement:
        yield agreement_table(found)
    for name in dict.fromkeys(row.set for row in found.best_of):
        yield best_of_table([row for row in found.best_of if row.set == name])
    if found.bias:
        yield bias_table(found)


def accuracy_table(found: Found) -> Table:
    """Return a row a category, a column a reward."""
    cells = {(row.set, row.category, row.reward): row for row in found.accuracy}
    rows = []
    for place in dict.fromkeys((row.set, row.category) for row in found.accuracy):
        own = [cells[*place, name] for name in _names(found)]
        texts = [
            _interval(each.accuracy, each.low, each.high)
            + (f", {each.ties} ties" if each.ties else "")
            + (f", {each.unscored} unscored" if each.unscored else "")
            for each in own
        ]
        rows.append((*place, f"{own[0].pairs + own[0].unscored:,}", *texts))
    return Table(("set", "category", "pairs", *_names(found)), rows, "Accuracy")


def sections_table(found: Found) -> Table:
    """Return RewardBench's sections, a column a reward."""
    cells = {(row.set, row.section, row.reward): row for row in found.sections}
    rows = []
    for place in dict.fromkeys((row.set, row.section) for row in found.sections):
        own = [cells.get((*place, name)) for name in _names(found)]
        subsets = next(f"{each.subsets} of {each.of}" for each in own if each is not None)
        rows.append((*place, subsets, *(number(None if each is None else each.score) for each in own)))
    return Table(("set", "section", "subsets", *_names(found)), rows, "Sections of RewardBench")


def calibration_table(found: Found) -> Table:
    """Return a row a set and reward."""
    rows = [
        (
            row.set,
            row.reward,
            f"{row.pairs:,}",
            number(row.ece),
            NO_TAU if row.calibrating_tau is None else f"{row.calibrating_tau:.3g}",
        )
        for row in found.calibration
    ]
    tau = found.calibration[0].tau
    head = ("set", "reward", "pairs", f"calibration error at tau {tau:g}", "tau that would calibrate it")
    return Table(head, rows, "Calibration")


def agreement_table(found: Found) -> Table:
    """Return a row a set and two rewards."""
    rows = [
        (row.set, f"{row.reward} / {row.other}", str(row.prompts), _signed(*row.spearman), _signed(*row.kendall))
        for row in found.agreement
    ]
    return Table(("set", "rewards", "prompts", "Spearman", "Kendall tau-b"), rows, "Agreement")


def best_of_table(curves: Sequence[BestOf]) -> Table:
    """Return the curves of a set at powers of two, and at the last n."""
    first = curves[0]
    sizes = sorted({n for n in first.n if n & (n - 1) == 0} | {first.n[-1]})
    rows = [
        (
            str(n),
            f"{first.kl[n - 1]:.2f}",
            *(_gained(each, n - 1) for each in curves),
        )
        for n in sizes
    ]
    caption = f"Best of n: gold reward on {first.set}, {first.prompts} prompts"
    names = (each.reward + (f" ({each.unscored:,} unscored)" if each.unscored else "") for each in curves)
    return Table(("n", "KL (nats)", *names), rows, caption)


def bias_table(found: Found) -> Table:
    """Return a row an edit, a column a reward."""
    cells = {(row.edit, row.reward): row for row in found.bias}
    rows = []
    for edit in dict.fromkeys(row.edit for row in found.bias):
        own = [cells[edit, name] for name in _names(found)]
        texts = [_signed(each.change, each.low, each.high) for each in own]
        least, most = min(each.prompts for each in own), max(each.prompts for each in own)
        rows.append((edit, str(most) if least == most else f"{least} to {most}", *texts))
    return Table(("only this changes", "prompts", *_names(found)), rows, "Bias: change of the reward in its deviations")


def _sections(found: Found) -> Iterator[Section]:
    if found.accuracy:
        sections = [sections_table(found)] if found.sections else []
        yield Section("How often is each reward right?", [Text(ACCURACY), accuracy_table(found), *sections])
    if found.calibration:
        yield Section("Does it know?", [Text(CALIBRATION), calibration_table(found), *_reliability(found)])
    if found.agreement:
        yield Section("Do the rewards agree?", [Text(AGREEMENT), agreement_table(found)])
    for name in dict.fromkeys(row.set for row in found.best_of):
        curves = [row for row in found.best_of if row.set == name]
        yield Section(f"What is best of n worth on {name}?", [Text(BEST_OF), _curves(curves), best_of_table(curves)])
    if found.bias:
        yield Section("What else moves it?", [Text(BIAS), bias_table(found), *_forests(found)])
    yield Section("What was judged", list(_origin(found)))


def _reliability(found: Found) -> Iterator[Plot]:
    for row in found.calibration:
        said, right, pairs = (np.array(own, np.float64) for own in (row.said, row.right, row.pairs_by_bin))
        caption = f"{row.reward} on {row.set}: how often it is right, by sigma(gap / tau) with tau {row.tau:g}"
        yield reliability_diagram(said, right, pairs, caption)


def _curves(curves: Sequence[BestOf]) -> Plot:
    series = {}
    for each in curves:
        at, gold, low, high = (np.array(own, np.float64) for own in (each.n, each.gold, each.low, each.high))
        series[each.reward] = at, gold, gold[0] + low, gold[0] + high
    caption = f"Gold reward of the best of n on {curves[0].set}, mean, and 95% of the gain over prompts"
    return bands(series, "n", "gold reward", caption)


def _forests(found: Found) -> Iterator[Plot]:
    for name in _names(found):
        own = [row for row in found.bias if row.reward == name]
        rows = [(row.edit, row.change, row.low, row.high) for row in own if None not in (row.change, row.low, row.high)]
        if rows:
            yield forest(rows, "change, in deviations of the reward", f"{name}: only this changes")  # type: ignore[arg-type]


def _origin(found: Found) -> Iterator[Block]:
    sets = [
        (row.set, row.source, f"{row.prompts:,}", f"{row.completions:,}", _left_out(row.read)) for row in found.sets
    ]
    yield Table(("set", "source", "prompts", "completions", "rows left out"), sets)
    yield Table(("reward", "made by"), [(str(row["reward"]), str(row["made_by"])) for row in found.rewards])


def _left_out(read: dict[str, Any]) -> str:
    bad = read.get("bad", {})
    return ", ".join(f"{reason}: {count}" for reason, count in bad.items()) or "none"


def _names(found: Found) -> list[str]:
    return [str(row["reward"]) for row in found.rewards]


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    return "-" if value is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _gained(curve: BestOf, place: int) -> str:
    """Return what the best of n is worth, and how far above random; nothing more where it is random."""
    gain, low, high = curve.gain[place], curve.low[place], curve.high[place]
    told = f"{curve.gold[place]:.3f}"
    return told if place == 0 or curve.reward == RANDOM else f"{told}, {gain:+.3f} [{low:+.3f}, {high:+.3f}]"


def _signed(value: float | None, low: float | None, high: float | None) -> str:
    return "-" if value is None else f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
