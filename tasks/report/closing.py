"""What a run says at its end, beside its table: three samples, what the monitors found, and where the report is."""

from collections.abc import Iterator, Mapping

from tasks.monitors.judging import FAIL, WARN, Verdict
from tasks.report.believed import conclusion
from tasks.report.blocks import Sample
from tasks.report.samples import read_answers, three_samples
from tasks.store.artifacts import Artifact
from tasks.store.parquet import read_table

LONGEST = 400
"""Characters of a text that are printed."""


def closing_words(artifacts: Mapping[str, Artifact]) -> Iterator[str]:
    """Yield lines for the terminal.

    Args:
        artifacts: What a run returned, `evaluation`, `held_out` and `report` among it.
    """
    if (answers := read_answers(artifacts["evaluation"])) is not None:
        prompts = read_table(artifacts["held_out"], ["prompt_id", "messages"])
        messages = dict(zip(prompts["prompt_id"].to_pylist(), prompts["messages"].to_pylist(), strict=True))
        for sample in three_samples(answers, messages):
            yield from _sample_lines(sample)
    yield from report_lines(artifacts["report"])


def _sample_lines(sample: Sample) -> Iterator[str]:
    yield ""
    yield sample.note
    for role, content in sample.prompt[-1:]:
        yield f"  {role}: {_one_line(content)}"
    for side in sample.sides:
        yield f"  {side.policy} ({side.reward}): {_one_line(side.completion)}"


def report_lines(report: Artifact) -> Iterator[str]:
    """Yield what the monitors have found, and where the report is."""
    verdicts = [Verdict(**each) for each in report.stats["verdicts"]]
    yield ""
    yield conclusion(verdicts)
    yield from (f"  {each.level}: {each.text}" for each in verdicts if each.level in (WARN, FAIL))
    if "report" in report.stats:
        yield f"The report: {report.stats['report']}"
    yield ""


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."
