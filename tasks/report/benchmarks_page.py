"""The page of a benchmark run."""

from collections.abc import Mapping

from tasks.benchmarks.figures import Outcome
from tasks.report.benchmarked import benchmark_sections
from tasks.report.page import render


def benchmarks_page(outcomes: Mapping[str, Outcome], store: str, judge: str = "") -> bytes:
    """Return the page of a benchmark run as HTML.

    Args:
        outcomes: What each benchmark comes to.
        store: Where the answers are.
        judge: Who judged; empty: nobody.
    """
    policies = list(dict.fromkeys(each.policy for outcome in outcomes.values() for each in outcome.figures))
    conclusion = f"Policies: {', '.join(policies)}." + (f" Judge: {judge}." if judge else "")
    return render("RS-DPO, benchmarks", "", store, conclusion, benchmark_sections(outcomes))
