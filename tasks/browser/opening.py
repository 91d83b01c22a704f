"""A run that a request asks for: read already, or still being read, in which case the page asks again by itself."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Query, Request
from starlette.responses import HTMLResponse

from tasks.browser.index import RunIndex
from tasks.browser.pages import page
from tasks.browser.run_files import RunFiles
from tasks.browser.shelf import PATIENCE

Start = Annotated[int, Query(ge=0, le=1 << 40)]
"""Where a page of a list begins."""
At = Annotated[int, Query(le=1 << 40)]
"""Where a prompt is in a list; below 0: in none."""


@dataclass(frozen=True)
class Open:
    """A run, and whether its index can be asked."""

    request: Request
    index: RunIndex
    progress: float
    ready: bool

    @property
    def files(self) -> RunFiles:
        """Return what the run has in the store."""
        return self.index.files

    def page(self, template: str, **values: Any) -> HTMLResponse:
        """Return a page about the run."""
        return page(template, store=self.files.store.uri, run=self.files.run, problems=self.index.problems, **values)

    def wait(self, template: str, **values: Any) -> HTMLResponse:
        """Return a page that shows how far the run is read, and asks for the same address again."""
        url = self.request.url
        return self.page(template, again=f"{url.path}?{url.query}", progress=min(1.0, self.progress), **values)


def with_run(request: Request, run_id: str) -> Open:
    """Return the run of an address; begin to read it where that has not been done."""
    return open_run(request, run_id)


def open_run(request: Request, run_id: str, patience: float = PATIENCE) -> Open:
    """Return a run, after so many seconds at most."""
    opened = request.app.state.shelf.open(run_id)
    ready = opened.is_ready(patience)
    return Open(request, opened.index, opened.progress, ready)
