"""The page of a comparison: what came out, the curves behind it, and what each pair of arms comes to."""

from collections.abc import Iterator, Sequence

import numpy as np

from tasks.comparison.best_of_n import best_of_n
from tasks.comparison.frontier import band
from tasks.comparison.outcome import Comparison, Verdict, arms_table, verdicts_table
from tasks.report.blocks import Alert, Block, Plot, Section, Table, Text
from tasks.report.page import render
from tasks.report.plots import bands, forest

FOOTING = (
    "Arms are compared at the same KL from the policy that they began with: a reward can always be bought with more of "
    "it. The reward at a KL is read off each training's own curve; intervals are over seeds, Student's t, 95%. Win "
    "rates are those of the last models, over prompts and seeds at once. p is corrected for all pairs of arms (Holm)."
)


def comparison_page(title: str, store: str, parts: dict[str, tuple[Comparison, list[Verdict]]]) -> bytes:
    """Return the page of a comparison as HTML.

    Args:
        title: Of the page.
        store: Where the runs are.
        parts: Name -> a comparison and its verdicts; the first is the main one.
    """
    main, found = next(iter(parts.values()))
    told = sum("not told apart" not in verdict.sentence for verdict in found)
    seeds = max(len(own) for own in main.results.values())
    conclusion = f"{len(main.results)} arms, {seeds} seeds: {told} of {len(found)} pairs of arms are told apart."
    sections = [section for name, part in parts.items() for section in _sections(name, *part)]
    return render(title, "", store, conclusion, sections)


def _sections(name: str, comparison: Comparison, found: Sequence[Verdict]) -> Iterator[Section]:
    blocks: list[Block] = [Text(FOOTING), arms_table(comparison), _frontier(comparison)]
    blocks += [Alert("warn", f"{arm} has no result: {why}") for arm, why in comparison.failed.items()]
    yield Section(f"What did each arm gain{name}?", blocks)
    if found:
        yield Section(f"Which arm is better{name}?", [*_differences(found), verdicts_table(found)])
    yield Section(f"Every seed{name}", [_seeds(comparison)])


def _frontier(comparison: Comparison) -> Plot:
    found = {arm: band([each.curve for each in own]) for arm, own in comparison.results.items()}
    first = next(iter(comparison.results.values()))
    found["best of n from sft"] = band([best_of_n(each.reference_proxy, each.reference_rewards) for each in first])
    series = {arm: (each.kl, each.mean, each.low, each.high) for arm, each in found.items()}
    caption = "Reward against KL along the trainings, mean and 95% over seeds"
    return bands(series, "KL from sft (nats a completion)", "reward", caption, (comparison.at_kl, "compared here"))


def _differences(found: Sequence[Verdict]) -> Iterator[Plot]:
    rows = [(f"{each.arm} / {each.other}", *each.at_kl[:3]) for each in found if each.at_kl is not None]
    if rows := [row for row in rows if np.isfinite(row[2])]:
        yield forest(rows, "difference of reward at equal KL", "Each pair of arms: the first less the second")
    rows = [(f"{each.arm} / {each.other}", *each.wins[:3]) for each in found if np.isfinite(each.wins.low)]
    if rows:
        yield forest(rows, "win rate less one half", "Each pair of arms: wins of the first's last model")


def _seeds(comparison: Comparison) -> Table:
    rows = [
        (arm, str(each.seed), f"{each.reference:.3f}", " ".join(f"{m.kl:.2f}: {m.reward:.3f}" for m in each.models))
        for arm, own in comparison.results.items()
        for each in own
    ]
    return Table(("arm", "seed", "sft", "KL: reward of each model"), rows)
