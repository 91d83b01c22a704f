"""What benchmarks came to: kept, read back, and told in the report of a run."""

import math

from tasks.benchmarks.figures import Answered, Figure, Outcome
from tasks.benchmarks.outcomes import ANSWERS, FIGURES, answers_table, figures_table, read_outcomes
from tasks.benchmarks.tables import benchmarks_lines
from tasks.report.page import report_page
from tasks.store.artifacts import NOTHING, Artifact, Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes

PROMPT = [{"role": "user", "content": "Who sees it?"}]
OUTCOMES = {
    "win_rate": Outcome(
        [Figure("sft", "win_rate", "win rate (%)", 40.0, 30.0, 50.0, 9)],
        [Answered("sft", PROMPT, "<script>nobody</script>", "win_rate", 0.5)],
        ["sft: a note"],
    ),
    "refusals": Outcome(
        [Figure("aligned", "refusals", "refused of harmless prompts (%)", math.nan, math.nan, math.nan, 0)],
        [Answered("aligned", PROMPT, "", "refusals harmless", math.nan)],
        [],
    ),
}


def kept(store: Store) -> Artifact:
    """Return the outcomes as the stage leaves them."""
    files = {
        FIGURES: table_bytes(figures_table(OUTCOMES), "benchmarks"),
        ANSWERS: table_bytes(answers_table(OUTCOMES), "benchmark_answers"),
    }
    stats = {"judge": "judge 1", "notes": {name: own.notes for name, own in OUTCOMES.items()}}
    draft = Draft(store, Provenance(stage="measure_policies", version=1, key="b" * 64))
    return draft.commit("benchmark_results", files, "ab" * 32, stats=stats)


def test_what_is_kept_is_read_back(tmp_path):
    assert repr(read_outcomes(kept(Store(str(tmp_path))))) == repr(OUTCOMES)  # NaN equals NaN in words alone


def test_the_report_has_figures_notes_and_answers_escaped(facts_of):
    facts = facts_of([("q", "a", "b", 0.0, 1.0)])
    facts.artifacts["measure_policies"] = kept(facts.store)
    page = report_page(facts).decode()
    for words in ("How does it do on benchmarks?", "The judge was judge 1.", "40.0  [30.0, 50.0]", "sft: a note"):
        assert words in page
    assert "&lt;script&gt;nobody&lt;/script&gt;" in page
    assert "<script>nobody" not in page


def test_without_benchmarks_the_report_says_nothing_of_them(facts_of):
    facts = facts_of([("q", "a", "b", 0.0, 1.0)])
    facts.artifacts["measure_policies"] = NOTHING  # as in a pilot
    assert "on benchmarks" not in report_page(facts).decode()


def test_the_page_of_the_stage_in_the_ui(tmp_path):
    lines = benchmarks_lines(kept(Store(str(tmp_path))))
    assert lines[:3] == ["| win_rate | sft | of |", "| --- | --- | --- |", "| win rate (%) | 40.0 [30.0, 50.0] | 9 |"]
    assert lines[-1] == "- win_rate: sft: a note"
