"""Local working folders that do not outlive their process, even a killed one.

A process holds a lock on each of its folders, and the kernel drops the lock when the process ends, however it ends.
Host names and process ids would not do: containers share both, and the folder of a training that is alive would go.
"""

import contextlib
import fcntl
import glob
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.config.errors import ConfigurationError


def cache_folder() -> Path:
    """Return the folder for local copies and work: `$RSDPO_CACHE`, or `~/.cache/rsdpo`.

    Raises:
        ConfigurationError: The library datasets could not keep its files there.
    """
    folder = Path(os.environ.get("RSDPO_CACHE") or Path.home() / ".cache" / "rsdpo")
    if "::" in str(folder):
        raise ConfigurationError(
            f"RSDPO_CACHE = {folder} must not have '::' in it, which the library datasets takes for a chain of archives"
        )
    return folder


@contextlib.contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """Make an empty folder for this process, and delete it afterwards; folders of dead processes go first."""
    # By host: some network file systems keep locks within a host.
    parent = cache_folder() / "work" / socket.gethostname()
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"{name}-{os.getpid()}-{secrets.token_hex(4)}"
    # Else a new folder could be taken for a dead process's before it is locked.
    with locked(parent.with_name(f"{parent.name}.lock"), wait=True):
        _delete_orphans(parent)
        held = contextlib.ExitStack()
        held.enter_context(locked(_lock_of(folder), wait=False))
        folder.mkdir()
    with held:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _lock_of(folder).unlink(missing_ok=True)


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder among the local copies, made where it is not there yet: whole, or not at all.

    Args:
        name: Of the folder; names its content.
        make: Fills a folder that it makes itself, given its path.
    """
    folder = cache_folder() / name
    if folder.exists():
        return folder
    with scratch_folder(name[:16]) as scratch:
        make(scratch / "new")
        try:
            (scratch / "new").rename(folder)
        except OSError:  # another process was faster
            if not folder.exists():
                raise
    return folder


@contextlib.contextmanager
def locked(path: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock on a file, and tell whether it is held: not where another holds it, or locks are not supported.

    The descriptor closes in programs that this process starts, so that no child keeps the lock.
    """
    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except OSError:
            held = False
        yield held


@contextlib.contextmanager
def without_patterns(folder: Path) -> Iterator[Path]:
    """Give a path of a folder for a library that takes `[ ] * ?` in paths for patterns.

    It is the folder's own path where that has none of them, else a link, which goes afterwards.
    """
    if not glob.has_magic(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="rs-dpo-link-") as place:
        link = Path(place) / "folder"
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield link


def _delete_orphans(parent: Path) -> None:
    """Delete the folders whose lock nobody holds; one without a lock file, or that cannot be locked, stays."""
    for lock in parent.glob("*.lock"):
        with locked(lock, wait=False) as is_free:
            if is_free:
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
