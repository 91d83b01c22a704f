"""Benchmarks as tables and as a page: a row a figure, a column a policy."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from tasks.benchmarks import harness, mt_bench, refusals, win_rate
from tasks.benchmarks.figures import Answered, Figure, Outcome
from tasks.data.records import prompt_id
from tasks.report.blocks import Alert, Block, Sample, Samples, Section, Side, Table, Text
from tasks.report.page import render

TITLES = {
    mt_bench.NAME: "How are the answers to MT-Bench rated?",
    win_rate.NAME: "How often do the answers win over the reference answers?",
    refusals.NAME: "What is refused?",
    harness.NAME: "What did the alignment cost elsewhere?",
}
"""Benchmark -> the question that it answers."""
FOOTINGS = {
    mt_bench.NAME: "A judge rates each answer from 1 to 10, with MT-Bench's own prompts (arXiv:2306.05685). Intervals, "
    "95%, are over questions, whose two turns are drawn together.",
    win_rate.NAME: "A judge compares both answers in both orders; a tie, or two verdicts that disagree, is half a win. "
    "The length-controlled rate is what a logistic regression expects at equal lengths (arXiv:2404.04475), without its "
    "term for the difficulty of an instruction and its authors' two gamed baselines. Intervals, 95%, are over "
    "instructions.",
    refusals.NAME: f"A refusal is told by the rule `{refusals.RULE}`: one of {len(refusals.PHRASES)} phrases stands "
    "at the beginning of the answer, or the answer is empty. Intervals, 95%, are over prompts.",
    harness.NAME: "Tasks of lm-eval. Intervals, 95%, are 1.96 of its standard errors; in brackets, the difference from "
    "the first policy. Both are measured on the same questions, so a difference is surer than the intervals suggest.",
}
MOST, LONGEST = 6, 1500
"""Samples of a measure, and characters of a text in one."""


def benchmark_tables(outcomes: Mapping[str, Outcome]) -> dict[str, Table]:
    """Return each benchmark's figures as a table."""
    return {name: _table(name, outcome.figures) for name, outcome in outcomes.items()}


def benchmarks_page(outcomes: Mapping[str, Outcome], store: str, judge: str = "") -> bytes:
    """Return the page of a benchmark run as HTML.

    Args:
        outcomes: What each benchmark comes to.
        store: Where the answers are.
        judge: Who judged; empty: nobody.
    """
    policies = list(dict.fromkeys(each.policy for outcome in outcomes.values() for each in outcome.figures))
    conclusion = f"Policies: {', '.join(policies)}." + (f" Judge: {judge}." if judge else "")
    tables = benchmark_tables(outcomes)
    sections = [
        Section(TITLES[name], [*_blocks(outcome, tables[name], FOOTINGS[name])]) for name, outcome in outcomes.items()
    ]
    return render("RS-DPO, benchmarks", "", store, conclusion, sections)


def _blocks(outcome: Outcome, table: Table, footing: str) -> Iterator[Block]:
    yield table
    yield Text(footing)
    yield from (Alert("warn", note) for note in outcome.notes)
    measures: dict[str, list[Answered]] = defaultdict(list)
    for each in outcome.answers:
        measures[each.measure].append(each)
    for measure, answers in measures.items():
        yield Samples(f"{measure}: where the policies differ most", samples_of(answers))


def samples_of(answers: Sequence[Answered]) -> list[Sample]:
    """Return the prompts whose answers differ most in value, then those of the lowest value; of each, all answers.

    Answers to the second turn follow the policy's own first one, so that each policy has a prompt of its own there.
    """
    prompts: dict[str, list[Answered]] = defaultdict(list)
    for each in answers:
        prompts[prompt_id([turn for turn in each.messages if turn["role"] != "assistant"])].append(each)

    def order(sides: list[Answered]) -> tuple[float, float]:
        values = [each.value for each in sides if not math.isnan(each.value)]
        return (min(values) - max(values), min(values)) if values else (0.0, math.inf)

    return [_sample(sides) for sides in sorted(prompts.values(), key=order)[:MOST]]


def _sample(sides: Sequence[Answered]) -> Sample:
    prompt = [(turn["role"], turn["content"][:LONGEST]) for turn in sides[0].messages if turn["role"] != "assistant"]
    return Sample(prompt, [Side(each.policy, each.completion[:LONGEST], _value(each)) for each in sides], "")


def _value(each: Answered) -> str:
    return "unreadable" if math.isnan(each.value) else f"{each.value:g}"


def _table(name: str, figures: Sequence[Figure]) -> Table:
    policies = list(dict.fromkeys(each.policy for each in figures))
    found = {(each.figure, each.policy): each for each in figures}
    rows = []
    for label in dict.fromkeys(each.figure for each in figures):
        own = [found.get((label, policy)) for policy in policies]
        first = own[0] if name == harness.NAME else None
        count = max(each.rows for each in own if each is not None)
        rows.append((label, *(_cell(each, first) for each in own), f"{count:,}"))
    return Table((name, *policies, "of"), rows)


def _cell(figure: Figure | None, first: Figure | None) -> str:
    """Return a figure with its interval and, where a first one is given and another, the difference from it."""
    if figure is None or math.isnan(figure.value):
        return "-"
    digits = 1 if "%" in figure.figure or abs(figure.value) >= 100 else 3
    interval = "" if math.isnan(figure.low) else f"  [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"
    text = f"{figure.value:.{digits}f}{interval}"
    if first is None or first.policy == figure.policy:
        return text
    return f"{text}  ({figure.value - first.value:+.{digits}f})"
