"""Progress: a bar on the terminal and, within a Prefect task, a progress artifact in the UI."""

import sys
import time
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from tqdm import tqdm

from tasks.stage import in_task

UI_SECONDS = 5.0
"""Least time between two updates of the UI."""


class Progress:
    """Counts units of work towards a total."""

    def __init__(self, what: str, total: int, start: int = 0) -> None:
        """Open the bar; it stays silent where the terminal is none."""
        self.total = max(total, 1)
        self.bar = tqdm(total=self.total, initial=start, desc=what, disable=not sys.stderr.isatty(), leave=False)
        self.artifact: Any = (
            create_progress_artifact(100.0 * start / self.total, description=what) if in_task() else None
        )
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
        if self.artifact is not None:
            update_progress_artifact(self.artifact, min(percent, 100.0))
