"""What a person sees while a run goes on: lines of its log, a bar on the terminal, a progress artifact in the UI."""

import contextlib
import logging
import sys
import time
from typing import Any

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from prefect.exceptions import MissingContextError
from tqdm import tqdm

from tasks.pipeline.dry_run import PLAN

UI_SECONDS = 5.0
"""Least time between two updates of the UI."""


def log(message: str, level: int = logging.INFO) -> None:
    """Log to the Prefect run, or print outside of one; a dry run keeps the warnings for its end."""
    if (plan := PLAN.get()) is not None:
        plan.warnings += [message] if level >= logging.WARNING else []
        return
    try:
        get_run_logger().log(level, message)
    except MissingContextError:
        print(message if level == logging.INFO else f"{logging.getLevelName(level)}: {message}", flush=True)


def warn(message: str) -> None:
    """Log a warning, as `log` does."""
    log(message, logging.WARNING)


class Progress:
    """Counts units of work towards a total."""

    def __init__(self, what: str, total: int, start: int = 0) -> None:
        """Open the bar; it stays silent where the terminal is none."""
        self.total = max(total, 1)
        self.bar = tqdm(total=self.total, initial=start, desc=what, disable=not sys.stderr.isatty(), leave=False)
        self.artifact: Any = None
        if TaskRunContext.get() is not None:
            with contextlib.suppress(httpx.HTTPError):  # what is shown is not worth the work
                self.artifact = create_progress_artifact(100.0 * start / self.total, description=what)
        self.updated = time.monotonic()

    def move_to(self, done: int, note: str = "") -> None:
        """Show that so many units are done."""
        self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(done - self.bar.n)
        if time.monotonic() - self.updated > UI_SECONDS:
            self._show(100.0 * done / self.total)

    def close(self) -> None:
        """End the bar."""
        self.bar.close()
        self._show(100.0)

    def _show(self, percent: float) -> None:
        self.updated = time.monotonic()
        artifact, self.artifact = self.artifact, None  # shown no more once the server is gone
        if artifact is not None:
            with contextlib.suppress(httpx.HTTPError):
                update_progress_artifact(artifact, min(percent, 100.0))
                self.artifact = artifact
