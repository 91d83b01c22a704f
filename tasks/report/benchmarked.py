"""Benchmarks of policies: the figures of each as a table, what they mean, and the answers behind them."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from tasks.benchmarks import harness, mt_bench, refusals, win_rate
from tasks.benchmarks.figures import Answered, Outcome
from tasks.benchmarks.outcomes import read_outcomes
from tasks.benchmarks.tables import figure_rows
from tasks.data.records import prompt_id
from tasks.report.blocks import Alert, Block, Sample, Samples, Section, Side, Table, Text
from tasks.report.facts import Facts

BENCHMARKS = "measure_policies"
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
    "at the beginning of the answer, or the answer is empty. Intervals are Wilson's, 95%.",
    harness.NAME: "Tasks of lm-eval. Intervals, 95%, are 1.96 of its standard errors; in brackets, the difference from "
    "the first policy. Both are measured on the same questions, so a difference is surer than the intervals suggest.",
}
MOST, LONGEST = 6, 1500
"""Samples of a measure, and characters of a text in one."""


def benchmark_tables(outcomes: Mapping[str, Outcome]) -> dict[str, Table]:
    """Return each benchmark's figures as a table."""
    return {name: Table(*figure_rows(name, outcome.figures)) for name, outcome in outcomes.items()}


def benchmark_sections(outcomes: Mapping[str, Outcome]) -> list[Section]:
    """Return a section a benchmark: its figures, what has to be known of them, and answers to read."""
    tables = benchmark_tables(outcomes)
    return [Section(TITLES[name], [*_blocks(own, tables[name], FOOTINGS[name])]) for name, own in outcomes.items()]


def benchmarks_section(facts: Facts) -> Section | None:
    """Return what benchmarks found of a run's policies; None where none was asked for, or not yet."""
    if not facts.artifacts.get(BENCHMARKS):
        return None
    judge = facts.stats(BENCHMARKS)["judge"]
    begin = [Text(f"The judge was {judge}.")] if judge else []
    own = benchmark_sections(read_outcomes(facts.artifacts[BENCHMARKS]))
    return Section("How does it do on benchmarks?", [*begin, *(block for each in own for block in each.blocks)])


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
    return Sample(prompt, [Side(each.policy, each.completion[:LONGEST], *_found(each)) for each in sides], "")


def _found(each: Answered) -> tuple[str, str]:
    """Return what an answer got, and by what."""
    if math.isnan(each.value):
        return "unreadable", "verdict"
    if each.measure.startswith(refusals.NAME):
        return "refused" if each.value else "not refused", ""
    if each.measure == win_rate.NAME:
        return "wins" if each.value > 0.5 else "loses" if each.value < 0.5 else "ties", ""
    return f"{each.value:g}", "rated"
