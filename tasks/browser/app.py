"""The addresses of runs and prompts. Each renders a whole page, of which htmx takes what it needs."""

import math
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from tasks.browser.filters import read_filters
from tasks.browser.guards import guard
from tasks.browser.more import router
from tasks.browser.opening import At, Open, Start, with_run
from tasks.browser.pages import STATIC, page
from tasks.browser.prompts import compare_pair, flag_counts, list_prompts, neighbours, show_prompt, sources
from tasks.browser.run_files import files_of
from tasks.browser.shelf import Shelf
from tasks.browser.side_by_side import figures
from tasks.inspection.catalog import check_there
from tasks.store.filesystem import in_parallel
from tasks.store.folders import Store
from tasks.store.runs import Run, list_runs

RUNS_AT_ONCE, AT_ONCE = 25, 4
CURVE = [0.5 + step / 100 for step in range(50)]
"""Values of eta at which the curve beside the sliders has a point."""


def create_app(store: Store) -> FastAPI:
    """Return the application that shows a store."""
    app = FastAPI(title="RS-DPO store", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.store, app.state.shelf = store, Shelf(store)
    guard(app)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_api_route("/", runs_page)
    app.add_api_route("/runs/{run_id}", run_page)
    app.add_api_route("/runs/{run_id}/threshold", threshold)
    app.add_api_route("/runs/{run_id}/prompts/{prompt_id}", prompt_page)
    app.include_router(router)
    return app


def runs_page(request: Request, start: Start = 0) -> HTMLResponse:
    """Show the runs, the newest first."""
    store: Store = request.app.state.store
    runs, damaged = list_runs(store)
    if not runs:
        check_there(store)
    some = runs[::-1][start:][:RUNS_AT_ONCE]
    read = in_parallel(lambda run: files_of(store, run), some, AT_ONCE)
    listed = [{"run": files.run, "figures": figures(files), "state": state_of(files.run)} for files in read]
    return page("runs.html", store=store.uri, runs=listed, number=len(runs), damaged=damaged, start=start)


def run_page(request: Request, opened: Annotated[Open, Depends(with_run)], start: Start = 0) -> HTMLResponse:
    """Show a run: its figures, what other thresholds would keep, and its prompts."""
    filters = read_filters(request.query_params)
    files, config = opened.files, opened.files.pairs_config()
    known = {"files": files, "state": state_of(files.run), "figures": figures(files), "config": config}
    if not opened.ready:
        return opened.wait("run_waits.html", **known)
    index = opened.index
    listing = list_prompts(index, filters, start)
    kept = _kept(opened, config.tau, config.eta)
    lists = {"listing": listing, "sources": sources(index), "flags": flag_counts(index)}
    answer = opened.page("run.html", **known, **kept, **lists, filters=filters)
    answer.headers["HX-Push-Url"] = f"{request.url.path}?{filters.query()}"  # without the fields that are empty
    return answer


def threshold(opened: Annotated[Open, Depends(with_run)], tau: str = "", eta: str = "") -> HTMLResponse:
    """Show how many pairs tau and eta would keep."""
    if not opened.ready:
        return opened.wait("wait.html")
    return opened.page("kept.html", **_kept(opened, _float(tau), _float(eta)))


def prompt_page(
    request: Request, opened: Annotated[Open, Depends(with_run)], prompt_id: str, pair: str = "", at: At = -1
) -> HTMLResponse:
    """Show a prompt with its completions in order of reward, its pairs, and one of these word by word."""
    filters = read_filters(request.query_params)
    if not opened.ready:
        return opened.wait("wait.html")
    prompt = show_prompt(opened.index, prompt_id)
    around: dict[str, Any] = neighbours(opened.index, filters, at) if at >= 0 else {"previous": None, "next": None}
    values = {"compared": compare_pair(prompt, pair), "lineage": opened.files.origins()}
    return opened.page("prompt.html", prompt=prompt, filters=filters, at=at, **values, **around)


def state_of(run: Run) -> str:
    """Return how a run stands."""
    return "in use" if run.in_use() else "finished" if run.status == "finished" else "interrupted"


def _float(typed: str) -> float:
    try:
        return float(typed)
    except ValueError:
        return math.nan


def _kept(opened: Open, tau: float, eta: float) -> dict[str, Any]:
    """Return what tau and eta keep, and the curve over eta at this tau."""
    gaps = opened.index.gaps
    kept = gaps.count(tau, eta)
    curve = [(point, gaps.count(tau, point).pairs) for point in CURVE]
    return {"kept": kept, "curve": curve, "tau": tau, "eta": eta, "own": opened.files.rows("pairs")}
