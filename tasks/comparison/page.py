"""The page of a comparison: what came out, the curves behind it, and what each pair of arms comes to."""

from collections.abc import Iterator, Sequence

from tasks.comparison.benchmarked import benchmarks_table
from tasks.comparison.figures import differences, frontier, swept, trainings
from tasks.comparison.outcome import Comparison, Verdict, arms_table, verdicts_matrix, verdicts_table
from tasks.comparison.weakened import weakened_table
from tasks.report.blocks import Alert, Block, Section, Table, Text
from tasks.report.page import render

FOOTING = (
    "Arms are compared at the same KL from the policy that they began with: a reward can always be bought with more of "
    "it. The reward at a KL is read off each training's own curve; intervals are over seeds, Student's t, 95%. Win "
    "rates are those of the last models, over prompts and seeds at once. p is corrected for all pairs of arms (Holm)."
)
BENCHMARKS = (
    "Of each arm's last model, means over seeds; intervals are over seeds, Student's t, 95%, and say nothing of "
    "another choice of questions. The answers are in the report of each run."
)


def comparison_page(title: str, store: str, parts: dict[str, tuple[Comparison, list[Verdict]]]) -> bytes:
    """Return the page of a comparison as HTML.

    Args:
        title: Of the page.
        store: Where the runs are.
        parts: Name -> a comparison and its verdicts; the first is the main one.
    """
    main, found = next(iter(parts.values()))
    told = sum(bool(verdict.word) for verdict in found)
    seeds = max(len(own) for own in main.results.values())
    conclusion = f"{len(main.results)} arms, {seeds} seeds: {told} of {len(found)} pairs of arms are told apart."
    sections = [section for name, part in parts.items() for section in _sections(name, *part)]
    return render(title, "", store, conclusion, sections)


def _sections(name: str, comparison: Comparison, found: Sequence[Verdict]) -> Iterator[Section]:
    blocks: list[Block] = [Text(FOOTING), arms_table(comparison), frontier(comparison)]
    blocks += [Alert("warn", f"{arm} has no result: {why}") for arm, why in comparison.failed.items()]
    yield Section(f"What did each arm gain{name}?", blocks)
    if found:
        matrix = [verdicts_matrix(comparison, found)] if len(comparison.results) > 2 else []
        yield Section(f"Which arm is better{name}?", [*matrix, *differences(found), verdicts_table(found)])
    if (measured := benchmarks_table(comparison)) is not None:
        yield Section(f"How does each arm do on benchmarks{name}?", [Text(BENCHMARKS), measured])
    for sweep in comparison.sweeps:
        if plots := list(swept(comparison, sweep)):
            yield Section(f"Sweep of {sweep.axis}{name}", [*plots])
    if comparison.weakened:
        yield Section(f"What does a weaker version lose{name}?", [weakened_table(comparison)])
    if plots := list(trainings(comparison)):
        yield Section(f"How did the trainings go{name}?", [*plots])
    yield Section(f"Every seed{name}", [_seeds(comparison)])


def _seeds(comparison: Comparison) -> Table:
    rows = [
        (arm, str(each.seed), f"{each.reference:.3f}", " ".join(f"{m.kl:.2f}: {m.reward:.3f}" for m in each.models))
        for arm, own in comparison.results.items()
        for each in own
    ]
    return Table(("arm", "seed", "sft", "KL: reward of each model"), rows)
