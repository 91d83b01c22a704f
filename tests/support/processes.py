"""Which processes still run."""

import time
from collections.abc import Iterable

import psutil


def is_alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that has ended and that nobody waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(processes: Iterable[psutil.Process], seconds: float = 60) -> None:
    """Wait until no process is left; fail with their commands after that time."""
    give_up = time.monotonic() + seconds
    left = list(processes)
    while left := [process for process in left if is_alive(process)]:
        assert time.monotonic() < give_up, [process.cmdline() for process in left]
        time.sleep(0.05)
