"""Local working folders that do not outlive their process, even a killed one."""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for local copies and work: `$RSDPO_CACHE`, or `~/.cache/rsdpo`."""
    return Path(os.environ.get("RSDPO_CACHE", Path.home() / ".cache" / "rsdpo"))


@contextlib.contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """Make an empty folder for this process and delete it afterwards, with those that dead processes left."""
    parent = cache_folder() / "work" / socket.gethostname()  # pids say nothing of another machine's processes
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        if not _is_alive(left.name.rpartition("-")[2]):
            shutil.rmtree(left, ignore_errors=True)
    folder = parent / f"{name}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: str) -> bool:
    return pid.isdigit() and Path(f"/proc/{pid}").exists()
