"""What a person sees while a run goes on.

Lines of its log; and of long work a bar on the terminal or, where stderr is no terminal, a line now and then, and a
progress artifact in Prefect's UI.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import httpx
import numpy as np
from tqdm import tqdm

from tasks.pipeline.dry_run import PLAN
from tasks.pipeline.pace import Mean, Tell, duration_text, pace_texts, position_text
from tasks.store.cost import COST

T = TypeVar("T")
LINE_SECONDS = 30.0
"""Least time between two lines of the log, and before the first one."""
UI_SECONDS = 5.0
"""Least time between two updates of the UI, and before the first one: what takes less is not shown."""
TELL_SECONDS = 1.0
"""Least time between two messages of a child process to its parent."""


class Position(NamedTuple):
    """How far some work is: what a child process tells its parent."""

    what: str
    total: int | None
    start: int
    done: int
    note: str


TELL: ContextVar[Callable[[Position], None] | None] = ContextVar("tell", default=None)
"""Set in a child process, whose parent shows its progress: takes the message to the parent."""
HEARD: ContextVar[list[tuple[str, int]] | None] = ContextVar("heard", default=None)
"""Where set, takes what is logged, with its level, too."""


def log(message: str, level: int = logging.INFO) -> None:
    """Log to the Prefect run, or print outside of one; a dry run keeps the warnings for its end."""
    if (heard := HEARD.get()) is not None:
        heard.append((message, level))
    _say(message, level)


def _say(message: str, level: int) -> None:
    if (plan := PLAN.get()) is not None:
        plan.warnings += [message] if level >= logging.WARNING else []
        return
    if (logger := _run_logger()) is not None:
        logger.log(level, message)
    else:
        print(message if level == logging.INFO else f"{logging.getLevelName(level)}: {message}", flush=True)


def _run_logger() -> Any:
    """Return the log of the Prefect run; None outside of one. Prefect, which takes a second, is not imported to ask."""
    if "prefect.context" not in sys.modules:
        return None
    from prefect import get_run_logger
    from prefect.exceptions import MissingContextError

    try:
        return get_run_logger()
    except MissingContextError:
        return None


def _is_in_task() -> bool:
    """Tell whether a Prefect task is running here."""
    context = sys.modules.get("prefect.context")
    return context is not None and context.TaskRunContext.get() is not None


def warn(message: str) -> None:
    """Log a warning, as `log` does."""
    log(message, logging.WARNING)


class Progress:
    """Counts units of work towards a total."""

    def __init__(
        self, what: str, total: int | None, start: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to count.

        Args:
            what: The work, as its lines begin.
            total: Units at the end; None: not known, so that no time left and no percents can be told.
            start: Units that were done before; rate and time left are without them.
            clock: Seconds.
        """
        self.what, self.total, self.start, self.done, self.clock = what, total, start, start, clock
        self.note = self.speed = ""
        self.tell = TELL.get()
        self.on_terminal = self.tell is None and sys.stderr.isatty()
        self.bar = tqdm(
            total=total, initial=start, desc=what, disable=not self.on_terminal, leave=False, delay=TELL_SECONDS
        )
        self.in_ui = self.tell is None and total is not None and _is_in_task()
        self.artifact: Any = None
        self.begun = self.logged = self.shown = self.told = clock()

    def move_to(self, done: int, note: str | None = None, tokens: int | None = None) -> None:
        """Show that so many units are done.

        Args:
            done: Units, those of the start among them.
            note: What matters of the work so far; None: as before.
            tokens: Tokens that were worked on since the start; None: as before.
        """
        now, self.done = self.clock(), done
        if note is not None:
            self.note = note
        if tokens and now > self.begun:
            self.speed = f"{tokens / (now - self.begun):,.0f} tokens/s"
        self.bar.set_postfix_str(self._notes(), refresh=False)
        self.bar.update(done - self.bar.n)
        self._show(now)

    def advance(self, units: int) -> None:
        """Show that so many more units are done."""
        self.move_to(self.done + units)

    def counting(self, mean: Mean) -> Tell:
        """Return a function that takes values, a unit each, and shows how many there are, and their mean."""

        def tell(values: np.ndarray) -> None:
            mean.add(values)
            self.move_to(self.start + mean.number, mean.text())

        return tell

    def close(self) -> None:
        """End the bar, say how it went where lines were logged, and note what it cost."""
        self.bar.close()
        now = self.clock()
        if (cost := COST.get()) is not None:
            cost.add_phase(self.what, self.done - self.start, now - self.begun)
        if self.tell is not None:
            self._tell(now)
        if self.in_ui and self.artifact is not None:
            self._update_ui(now, ended=True)
        if self.logged > self.begun:
            self._log(self._text(now, ended=True))

    def _show(self, now: float) -> None:
        """Show where it is wherever that was not shown for long enough."""
        if self.tell is not None:
            if now - self.told >= TELL_SECONDS:
                self._tell(now)
            return
        if self.in_ui and now - self.shown >= UI_SECONDS:
            self._update_ui(now)
        if not self.on_terminal and now - self.logged >= LINE_SECONDS:
            self.logged = now
            self._log(self._text(now))

    def _tell(self, now: float) -> None:
        assert self.tell is not None
        self.told = now
        self.tell(Position(self.what, self.total, self.start, self.done, self._notes()))

    def _update_ui(self, now: float, ended: bool = False) -> None:
        """Make the artifact, or bring it up to date; none is shown any more once the server is gone."""
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        self.shown, self.in_ui = now, False
        percent, text = min(100.0 * self.done / max(self.total or 1, 1), 100.0), self._text(now, ended)
        with contextlib.suppress(httpx.HTTPError):  # what is shown is not worth the work
            if self.artifact is None:
                self.artifact = create_progress_artifact(percent, description=text)
            else:
                update_progress_artifact(self.artifact, percent, description=text)
            self.in_ui = True

    def _text(self, now: float, ended: bool = False) -> str:
        seconds = now - self.begun
        rest = None if self.total is None else self.total - self.done
        rate, *left = pace_texts(self.done - self.start, rest, seconds) or [""]
        place = position_text(self.done, self.total) + (f" in {duration_text(seconds)}" if ended else "")
        return f"{self.what}: " + ", ".join(filter(None, (place, rate, *([] if ended else left), self._notes())))

    def _notes(self) -> str:
        return ", ".join(filter(None, (self.note, self.speed)))

    @staticmethod
    def _log(line: str) -> None:
        if PLAN.get() is None:
            _say(line, logging.INFO)
        else:  # a dry run's stdout is its plan
            print(line, file=sys.stderr, flush=True)


def track(what: str, items: Iterable[T], total: int | None = None) -> Iterator[T]:
    """Yield items, and show how many are dealt with."""
    progress = Progress(what, total)
    for number, item in enumerate(items, 1):
        yield item
        progress.move_to(number)
    progress.close()
