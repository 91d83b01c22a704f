"""What a run says besides its one message: its whole log and traceback, in a file that is kept where the run fails."""

import contextlib
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from tasks.config.environment import why_not_writable
from tasks.store.scratch import cache_folder

KEEP_SECONDS = 30 * 86_400
"""How long the file of a failed run is kept."""
LAST_SECONDS = 10.0
"""What a process has to end by itself after a signal."""
_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|AUTH|CREDENTIAL", re.IGNORECASE)
_FAILED = re.compile(r"Finished in state (Failed|Crashed|Cancelled)")
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")


class RunLog:
    """Keeps Prefect's errors off the terminal and in a file, which the message of a failure names.

    A deployment's run does not come here: there, Prefect's log has the errors as ever.
    """

    def __init__(self, unless: tuple[type[Exception], ...] = ()) -> None:
        """Make the file.

        Args:
            unless: Errors whose message stands alone: no file is kept for them.
        """
        self.unless = unless
        self.path = _new_file()
        self.handler = _File(self.path, encoding="utf-8")
        self.handler.setFormatter(_Redacted("%(asctime)s %(levelname)s %(name)s - %(message)s"))

    def __enter__(self) -> Self:
        """Begin to write."""
        root = logging.getLogger()
        self.terminal = list(root.handlers)
        for handler in self.terminal:
            handler.addFilter(_is_for_the_terminal)
        root.addHandler(self.handler)
        self.threads, threading.excepthook = threading.excepthook, _log_thread
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Delete the file, or write the traceback into it and its path into the error."""
        kept = error is not None and not isinstance(error, self.unless)
        if kept and error is not None:
            logging.getLogger("prefect").error("the run ended with this error", exc_info=error)
            error.add_note(f"the whole log and traceback: {self.path}")
        threading.excepthook = self.threads
        logging.getLogger().removeHandler(self.handler)
        self.handler.close()
        for handler in self.terminal:
            handler.removeFilter(_is_for_the_terminal)
        if not kept:
            self.path.unlink(missing_ok=True)


def redacted(text: str) -> str:
    """Return a text without the secrets of the environment and of URLs."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= 6:
            text = text.replace(value, "***")
    return _USER_IN_URL.sub("***@", text)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """End the process on SIGTERM and SIGHUP with one message, its temporary files and its server gone.

    Within a flow Prefect takes SIGTERM first, and a training before that, to save its step; both pass it on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGTERM, _end)
    if before[signal.SIGHUP] is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    """Exit for a signal, at the latest after `LAST_SECONDS`; the signal does not interrupt the exit a second time."""
    from tasks.pipeline.jobs import exit_within

    signal.signal(number, signal.SIG_IGN)
    exit_within(LAST_SECONDS, 128 + number)
    sys.exit(128 + number)


class _File(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Go on where the disk is full, without a traceback on the terminal."""


class _Redacted(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def _is_for_the_terminal(record: logging.LogRecord) -> bool:
    """Tell whether a record is none of Prefect's about a failure."""
    fails = record.levelno >= logging.ERROR or _FAILED.match(record.getMessage())
    return not (record.name.startswith("prefect") and fails)


def _log_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        logging.getLogger("prefect").error("an error in the thread %s", args.thread, exc_info=args.exc_value)


def _new_file() -> Path:
    """Return a new file that only its owner can read, in the cache or a temporary folder; old ones go."""
    folder = cache_folder() / "logs"
    if why_not_writable(folder):
        folder = Path(tempfile.mkdtemp(prefix="rs-dpo-logs-"))
    folder.mkdir(parents=True, exist_ok=True)
    for old in filter(_is_old, folder.glob("*.log")):
        old.unlink(missing_ok=True)
    descriptor, name = tempfile.mkstemp(".log", time.strftime("%Y%m%d-%H%M%S-"), folder)
    os.close(descriptor)
    return Path(name)


def _is_old(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime > KEEP_SECONDS
    except FileNotFoundError:  # another run has deleted it
        return False
