"""The report as Markdown, for the page of the run in Prefect's UI."""

from tasks.evaluation.tables import evaluation_page
from tasks.monitors.judging import FAIL, WARN
from tasks.report.believed import conclusion
from tasks.report.facts import Facts


def report_summary(facts: Facts, uri: str) -> str:
    """Return what a run has found so far, and where its report is."""
    lines = ["# Report", "", f"The whole report: `{uri}`", ""]
    if "evaluate_policy" in facts.artifacts:
        lines += evaluation_page(facts.artifacts["evaluate_policy"])
    lines += [f"**{conclusion(facts.verdicts)}**", ""]
    doubts = [each for each in facts.verdicts if each.level in (FAIL, WARN)]
    lines += [f"- {each.level}: {each.text}" for each in doubts]
    return "\n".join(lines)
