"""Checks that passed before: on the same content they are not made again, since most load a library of seconds.

A small file each in the folder of local copies, named by all that decides what the check says: what it reads, by
content, the code of `tasks/`, and the packages that are installed. What the check logged is logged again.
"""

import contextlib
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.pipeline.progress import HEARD, log
from tasks.store.artifacts import Artifact, sha256_of
from tasks.store.drafts import artifacts_of, canonical_json, plain
from tasks.store.filesystem import open_fs, write_file
from tasks.store.scratch import cache_folder

FOLDER = "checked"
KEEP_SECONDS = 90 * 86_400
"""How long what was not asked for again is kept."""


def unless_passed(check: Callable[..., None], *given: Any) -> None:
    """Call a check with arguments, unless it has passed with the same ones.

    Args:
        check: Says of its arguments alone whether they pass; raises where they do not.
        *given: Artifacts count by their digests and stats; an artifact that is only foreseen, or whose code of its own
            runs, is always checked.

    Raises:
        Exception: What the check raises.
    """
    artifacts = [artifact for _, artifact in artifacts_of({"given": given}) if artifact]
    if any(not artifact.digest or artifact.stats.get("trust_remote_code") for artifact in artifacts):
        check(*given)
        return
    remembered(lambda: check(*given), f"{check.__module__}:{check.__qualname__}", [_counted(each) for each in given])


def remembered(compute: Callable[[], Any], name: str, decides: Any) -> Any:
    """Return what a function returns, or returned before where the same decided it.

    Args:
        compute: Returns what JSON can hold.
        name: Names what is computed.
        decides: All that it depends on but code and packages, as JSON can write it.

    Raises:
        Exception: What the function raises; nothing is remembered then.
    """
    key = sha256_of(canonical_json([name, decides, _code(), _packages()]).encode())
    file = cache_folder() / FOLDER / f"{key}.json"
    if (known := _read(file)) is not None:
        for message, level in known["said"]:
            log(message, level)
        return known["value"]
    said: list[tuple[str, int]] = []
    token = HEARD.set(said)
    try:
        value = compute()
    finally:
        HEARD.reset(token)
    _write(file, {"name": name, "value": value, "said": said})
    return value


def _counted(value: Any) -> Any:
    """Return an argument as it counts: artifacts by content, wherever they lie."""
    return [value.digest, value.stats] if isinstance(value, Artifact) else plain(value)


def _read(file: Path) -> dict[str, Any] | None:
    """Return what a file remembers; None where it is missing or damaged."""
    try:
        known = json.loads(file.read_bytes())
        os.utime(file)
    except (OSError, ValueError):
        return None
    is_whole = isinstance(known, dict) and known.pop("checksum", "") == _checksum(known)
    return known if is_whole else None


def _checksum(known: dict[str, Any]) -> str:
    return sha256_of(json.dumps(known, sort_keys=True).encode())


def _write(file: Path, known: dict[str, Any]) -> None:
    """Write a file, and delete old ones; where that fails the check is made again next time."""
    with contextlib.suppress(OSError):
        write_file(*open_fs(str(file)), json.dumps({**known, "checksum": _checksum(known)}).encode())
        files = [(entry.path, entry.stat().st_mtime) for entry in os.scandir(file.parent)]
        for path in (path for path, asked in files if time.time() - asked > KEEP_SECONDS):
            os.unlink(path)


@functools.cache
def _code() -> str:
    """Return a digest of the code that may check."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*.py") if path.is_file()):  # an editor's lock is a link to nowhere
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.cache
def _packages() -> list[str]:
    """Return Python's version, and the packages that are installed with theirs, as their folders are called."""
    places = [place for place in sys.path if os.path.isdir(place)]
    names = {name for place in places for name in os.listdir(place) if name.endswith((".dist-info", ".egg-info"))}
    return [sys.version, *sorted(names)]
