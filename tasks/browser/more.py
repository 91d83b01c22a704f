"""The addresses of the evaluation, the lineage, two runs side by side, and the export."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import HTMLResponse, StreamingResponse

from tasks.browser.evaluation import ORDERS, PAGE, before_after, choices, histogram, read_asked
from tasks.browser.export import export_pairs
from tasks.browser.filters import read_filters
from tasks.browser.opening import Open, Start, open_run, with_run
from tasks.browser.prompts import show_prompt
from tasks.browser.side_by_side import ORDERS as RUN_ORDERS
from tasks.browser.side_by_side import different_settings, figures, shared_prompts
from tasks.config.errors import ConfigurationError
from tasks.evaluation.tables import evaluation_head, evaluation_rows
from tasks.inspection.lineage import trace

LONGEST_WAIT = 3600.0
"""Seconds that an export waits for its run to be read."""
router = APIRouter()


@router.get("/runs/{run_id}/evaluation")
def evaluation_page(
    opened: Annotated[Open, Depends(with_run)],
    before: str = "",
    after: str = "",
    reward: str = "",
    order: str = "gain",
    start: Start = 0,
) -> HTMLResponse:
    """Show an evaluation: its table, how the rewards are spread, and what two policies said."""
    if not opened.ready:
        return opened.wait("wait.html")
    index, stats = opened.index, opened.files.stats("evaluation")
    asked = read_asked(index, before, after, reward)
    if asked is None:
        return opened.page("no_evaluation.html")
    policies, rewards = choices(index)
    listing = before_after(index, asked, order, start)
    values = {"policies": policies, "rewards": rewards, "orders": ORDERS, "order": order, "size": PAGE}
    return opened.page(
        "evaluation.html", asked=asked, listing=listing, table=_table(stats), spread=histogram(index, asked), **values
    )


def _table(stats: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return an evaluation's figures as rows; None where another version has recorded them."""
    try:
        return {"head": evaluation_head(stats), "rows": evaluation_rows(stats)}
    except (KeyError, TypeError):
        return None


@router.get("/runs/{run_id}/lineage")
def lineage_page(opened: Annotated[Open, Depends(with_run)]) -> HTMLResponse:
    """Show a run's stages, and what its last output was made from."""
    files = opened.files
    entries = list(files.catalog.entries.values())
    made = [entry for entry in entries if entry.manifest]
    tree = trace(files.store, files.catalog, made[-1]) if made else None
    return opened.page("lineage.html", entries=entries, tree=tree)


@router.get("/runs/{run_id}/export.jsonl")
def export(request: Request, run_id: str) -> StreamingResponse:
    """Send the pairs of the filtered prompts as JSONL."""
    opened = open_run(request, run_id, LONGEST_WAIT)
    lines = export_pairs(opened.index, read_filters(request.query_params))
    name = f"pairs-{opened.files.run.id}.jsonl"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, media_type="application/jsonl", headers=headers)


@router.get("/compare")
def compare_page(
    request: Request,
    run: Annotated[list[str], Query(default_factory=list)],
    order: str = "more pairs",
    start: Start = 0,
) -> HTMLResponse:
    """Show two runs side by side."""
    both, waits = _two_runs(request, run)
    if waits:
        return both[0].wait("wait.html")
    left, right = both
    known: dict[str, Any] = {"left": left.files, "right": right.files, "orders": RUN_ORDERS, "order": order}
    known |= {"settings": different_settings(left.files, right.files)}
    known |= {"figures": (figures(left.files), figures(right.files))}
    return left.page("compare.html", **known, listing=shared_prompts(left.index, right.index, order, start))


@router.get("/compare/{prompt_id}")
def compare_prompt_page(
    request: Request, prompt_id: str, run: Annotated[list[str], Query(default_factory=list)]
) -> HTMLResponse:
    """Show what two runs have for one prompt."""
    both, waits = _two_runs(request, run)
    if waits:
        return both[0].wait("wait.html")
    prompts = [show_prompt(opened.index, prompt_id) for opened in both]
    return both[0].page("compare_prompt.html", sides=list(zip(both, prompts, strict=True)), prompt_id=prompt_id)


def _two_runs(request: Request, run_ids: list[str]) -> tuple[list[Open], bool]:
    """Return two runs, and whether one of them is still being read, which comes first then."""
    if len(run_ids) != 2:
        raise ConfigurationError(f"{len(run_ids)} runs are chosen: choose two on the first page")
    both = [open_run(request, run_id) for run_id in run_ids]
    waiting = [opened for opened in both if not opened.ready]
    return (waiting or both), bool(waiting)
