"""What the command line prints at the end: the plan of a dry run, what a pilot predicts, how the policies compare."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.config.data import DataConfig
from tasks.evaluation.tables import evaluation_head, evaluation_rows
from tasks.pipeline.dry_run import Plan
from tasks.planning.prediction import read_prediction
from tasks.report.blocks import Table as ReportTable
from tasks.report.closing import closing_words, report_lines
from tasks.report.planned import HEAD, prediction_notes, prediction_rows
from tasks.store.artifacts import Artifact


def rich_table(table: ReportTable, title: str = "") -> Table:
    """Return a table of a report as the console prints it."""
    shown = Table(*table.head, title=title or None)
    for row in table.rows:
        shown.add_row(*row)
    return shown


def print_plan(plan: Plan, as_json: bool) -> None:
    """Print what a run would do, a line a stage, and what it would warn of."""
    if as_json:
        print(json.dumps({"plan": plan.steps, "warnings": plan.warnings}))
        return
    table = Table("stage", "action", "cost", "key", box=None, pad_edge=False)
    for step in plan.steps:
        cost = ", ".join(f"{value} {name}" for name, value in step.items() if name not in ("stage", "key", "action"))
        table.add_row(step["stage"], step["action"], cost, step["key"])
    console = Console(width=None if sys.stdout.isatty() else 200, markup=False)
    console.print(table)
    for warning in plan.warnings:
        console.print(f"warning: {warning}", soft_wrap=True, highlight=False)


def print_report(artifacts: dict[str, Artifact], as_json: bool) -> None:
    """Print the comparison of the policies and where everything is; with `as_json` one last line for programs."""
    figures = artifacts["evaluation"].stats
    console = Console(width=None if sys.stdout.isatty() else 140, soft_wrap=True, markup=False)  # paths have brackets
    table = Table(*evaluation_head(figures), title="RS-DPO against its SFT policy")
    for row in evaluation_rows(figures):
        table.add_row(*row)
    console.print(table)
    for line in closing_words(artifacts):
        console.print(line, highlight=False)
    made = {name: artifact for name, artifact in artifacts.items() if artifact and name != "report"}
    for name, artifact in made.items():
        console.print(f"{name:>13}  {artifact.uri}", highlight=False)
    if as_json:
        stages = {name: {"uri": a.uri, "digest": a.digest, "rows": a.rows} for name, a in made.items()}
        metrics = {name: a.stats for name, a in made.items()}
        print(json.dumps({"artifacts": stages, "metrics": metrics} | _told(artifacts["report"])), flush=True)


def print_prediction(artifacts: dict[str, Artifact], data: DataConfig, as_json: bool) -> None:
    """Print what a pilot predicts of the whole run; with `as_json` one last line for programs."""
    prediction, console = artifacts["prediction"], Console(width=None if sys.stdout.isatty() else 140, markup=False)
    table = Table(*HEAD, title="What the whole run will find and take")
    for row in prediction_rows(prediction):
        table.add_row(*row)
    console.print(table)
    for note in prediction_notes(prediction, data.labels_completions):
        console.print(note, soft_wrap=True, highlight=False)
    for line in report_lines(artifacts["report"]):
        console.print(line, soft_wrap=True, highlight=False)
    if as_json:
        figures = {name: value._asdict() for name, value in read_prediction(prediction).items()}
        print(json.dumps({"prediction": figures, **prediction.stats} | _told(artifacts["report"])), flush=True)


def _told(report: Artifact) -> dict[str, Any]:
    stats = report.stats
    predicted = {"predicted": stats["predicted"]} if "predicted" in stats else {}
    return {"report": stats.get("report"), "verdicts": stats["verdicts"], **predicted}
