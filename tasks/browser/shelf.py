"""The runs that are open: each is read once, in a thread of its own, and the last few stay in memory."""

import itertools
import threading
from collections import OrderedDict

import duckdb

from tasks.browser.index import RunIndex, connect
from tasks.browser.run_files import read_run
from tasks.config.errors import ConfigurationError
from tasks.store.artifacts import DamagedArtifactError
from tasks.store.filesystem import StoreError, store_errors
from tasks.store.folders import Store

PATIENCE = 0.15
"""Seconds that a page waits for a run to be read before it shows how far that is."""
_ONE_AT_A_TIME = threading.Lock()


def read_errors() -> tuple[type[Exception], ...]:
    """Return what a store that is damaged, changed or gone raises while a run is read, once the store is open."""
    return (ConfigurationError, DamagedArtifactError, ValueError, KeyError, duckdb.Error, *store_errors())


class Opened:
    """A run that is read, or has been."""

    def __init__(self, index: RunIndex) -> None:
        """Start to read in a thread that does not hold up the end of the process."""
        self.index = index
        self.error: Exception | None = None
        self._done = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def is_ready(self, patience: float = 0.0) -> bool:
        """Tell whether the run has been read, after so many seconds at most.

        Raises:
            Exception: What reading raised.
        """
        ready = self._done.wait(patience)
        if self.error is not None:
            raise self.error
        return ready

    @property
    def is_over(self) -> bool:
        """Tell whether reading has ended, well or not."""
        return self._done.is_set()

    @property
    def progress(self) -> float:
        """Return which share of the completions has been read."""
        return self.index.rows_read / max(1, self.index.files.rows("completions") or 0)

    def _read(self) -> None:
        outcome: Exception | None = StoreError("the run could not be read: its traceback is where the command runs")
        try:
            with _ONE_AT_A_TIME:
                self.index.build()
            outcome = None
        except read_errors() as error:
            outcome = error
        finally:
            self.error = outcome
            self._done.set()


class Shelf:
    """The indexes of the runs that were opened last."""

    def __init__(self, store: Store, most: int = 4) -> None:
        """Open an empty shelf.

        Args:
            store: Has the runs.
            most: Runs that stay in memory.
        """
        self._store, self._most = store, most
        self._connection = connect()
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def open(self, run_id: str) -> Opened:
        """Return a run that is read, or begin to read it.

        A finished run is read once. One under way is read anew where it has other tables by now. The pages of either
        stay when the store goes away.

        Raises:
            ConfigurationError: There is no such run.
            StoreError: The store cannot be read.
        """
        with self._lock:
            found = self._opened.get(run_id)
            if found is None or found.error is not None or found.index.files.run.status != "finished":
                found = self._renewed(found, run_id)
            self._opened[run_id] = found
            self._opened.move_to_end(run_id)
            while len(self._opened) > self._most and next(iter(self._opened.values())).is_over:
                self._opened.popitem(last=False)[1].index.close()
            return found

    def _renewed(self, found: Opened | None, run_id: str) -> Opened:
        readable = found is not None and found.error is None
        try:
            files = read_run(self._store, run_id)
        except store_errors(ConfigurationError):
            if found is None or not readable:
                raise
            return found
        if found is not None and readable and found.index.files.content() == files.content():
            return found
        if found is not None:
            found.index.close()
        return Opened(RunIndex(self._connection, f"run_{next(self._numbers)}", files))
