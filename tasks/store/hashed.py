"""Hashes of files that this machine has read, kept between processes: what has not changed is not read again to look.

A file is told by its place, its size and a tag: the ETag on S3; on a disk the times of its last changes and its inode,
which no copy and no tool that sets times back can repeat. What is computed with is compared with its hash all the same.
Without this memory, or with a damaged one, files are read once more.
"""

import os
import sqlite3
import threading
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.store.artifacts import sha256_of
from tasks.store.scratch import cache_folder

_BUSY_SECONDS = 10.0
_HELD_SECONDS = 60.0
_TABLE = "CREATE TABLE IF NOT EXISTS hashes (place TEXT PRIMARY KEY, size INTEGER, tag TEXT, sha256 TEXT) WITHOUT ROWID"


def tag_of(stat: os.stat_result) -> str:
    """Return what tells a local file from what stood in its place before, but for its size."""
    return f"{stat.st_mtime_ns}-{stat.st_ctime_ns}-{stat.st_ino}"


def recall(place: str, size: int, tag: str) -> str | None:
    """Return the SHA-256 of a file that this machine has read, None where it has not, or the file is another by now."""
    rows = _ask("SELECT sha256 FROM hashes WHERE place = ? AND size = ? AND tag = ?", place, size, tag)
    return rows[0][0] if rows else None


def recall_below(folder: str) -> dict[str, tuple[int, str, str]]:
    """Return place -> size, tag and SHA-256 of all files below a folder that this machine has read: one question."""
    end = f"{folder}0"  # 0 is the character after the slash: this much the index of the table answers
    rows = _ask("SELECT place, size, tag, sha256 FROM hashes WHERE place > ? AND place < ?", f"{folder}/", end)
    return {place: (size, tag, sha256) for place, size, tag, sha256 in rows or ()}


def remember(place: str, size: int, tag: str, sha256: str) -> None:
    """Keep the SHA-256 of a file, whose size and tag were read before its content."""
    _ask("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)", place, size, tag, sha256)


def forget(place: str) -> None:
    """Forget a file that turned out to hold something else than was remembered; where that fails, forget them all."""
    if _ask("DELETE FROM hashes WHERE place = ?", place) is None:
        _drop(cache_folder() / "hashes.sqlite")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a local file: from memory where it has not changed since, else by reading it.

    Raises:
        OSError: The file cannot be read.
    """
    stat, place = path.stat(), os.path.abspath(path)
    known = recall(place, stat.st_size, tag_of(stat))
    if known is None:
        known = sha256_of(path)
        remember(place, stat.st_size, tag_of(stat), known)
    return known


def read_sha256(path: Path) -> str:
    """Return the SHA-256 of a local file that is computed with: read once a process, whatever is remembered of it.

    Raises:
        OSError: The file cannot be read.
    """
    stat = path.stat()
    return _read_once(os.path.abspath(path), stat.st_size, tag_of(stat))


@lru_cache(maxsize=4096)
def _read_once(place: str, size: int, tag: str) -> str:
    return sha256_of(Path(place))


_lock = threading.Lock()
_held: dict[Path, float] = {}
"""Memory that another process does not let go of -> when it is asked again, so that not each question waits for it."""


def _ask(statement: str, *values: Any) -> list[tuple[Any, ...]] | None:
    """Return rows of the memory, or None where it cannot be asked: that costs a reading, never a run."""
    path = cache_folder() / "hashes.sqlite"
    with _lock:
        if time.monotonic() < _held.get(path, 0.0):
            return None
        try:
            return _connect(os.getpid(), path).execute(statement, values).fetchall()
        except UnicodeEncodeError:  # a file whose name is no text, which is not kept
            return []
        except OSError:  # there is no place for it
            return None
        except sqlite3.DatabaseError as error:
            _answer(error, path)
            return None


def _answer(error: sqlite3.DatabaseError, path: Path) -> None:
    """Leave a memory alone for a while that another process holds, and drop one that cannot be read."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the rest is a detail
    if code == sqlite3.SQLITE_BUSY:
        _held[path] = time.monotonic() + _HELD_SECONDS
    elif not isinstance(error, sqlite3.OperationalError) or code == sqlite3.SQLITE_ERROR:
        _drop(path)  # damaged, or with the columns of another version


def _drop(path: Path) -> None:
    """Forget everything; the next question makes a new memory."""
    _connect.cache_clear()
    _held.pop(path, None)
    with suppress(OSError):
        path.unlink()


@lru_cache(maxsize=4)
def _connect(process: int, path: Path) -> sqlite3.Connection:  # a connection must not be carried over a fork
    path.parent.mkdir(parents=True, exist_ok=True)
    memory = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    memory.execute("PRAGMA synchronous = OFF")  # what is lost or damaged is read again
    memory.execute("PRAGMA journal_mode = MEMORY")
    memory.execute(_TABLE)
    return memory
