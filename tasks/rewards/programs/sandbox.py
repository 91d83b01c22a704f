"""Run a Python program that nobody has read: shut in, bounded, and killed as a whole.

Linux alone has what this needs, of any user: no root. The program sees no network, no process but its own, and no file
but Python's and the system's libraries, which it can read; it can write into one folder in memory, which goes with it.
It has no environment variable of the caller. It can start threads, and no process. What cannot be had is refused.

A sandbox shares the kernel with its caller: a fault in the kernel is a way out. Where code comes from an adversary,
run the stage on a machine that holds nothing of value.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tasks.config.errors import ConfigurationError

INSIDE = Path(__file__).with_name("inside.py")
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/zero", "/dev/urandom")
"""What a program may read beside Python, where it exists."""
TIMED_OUT = -14
"""Exit status of a sandbox whose alarm rang."""


class Limits(NamedTuple):
    """What one program may use."""

    seconds: float = 10.0
    """Wall time."""
    cpu_seconds: int = 10
    memory_mb: int = 512
    """Address space of its one process."""
    files_mb: int = 16
    """Its folder in all, and what it prints."""


class Outcome(NamedTuple):
    """What became of a program."""

    returncode: int
    """Its exit status; 128 and the signal's number where one ended it."""
    output: str
    """What it wrote to stdout; bytes that are no UTF-8 are replaced."""
    timed_out: bool


def run_sandboxed(source: str, stdin: str, limits: Limits) -> Outcome:
    """Run a Python program in a sandbox and return what became of it.

    Args:
        source: The program, up to 100 kB; what is long goes through `stdin`.
        stdin: Its input.
        limits: What it may use.

    Raises:
        ConfigurationError: This machine gives no sandbox.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        order = {"source": source, "stdin": stdin, "limits": limits._asdict()}
        order |= {"folder": os.path.realpath(folder), "binds": _readable()}
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(INSIDE)],
            input=json.dumps(order).encode(),
            stdout=output,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            start_new_session=True,
            check=False,
        )
        if done.stderr:
            raise ConfigurationError(_no_sandbox(done.stderr.decode(errors="replace")))
        output.seek(0)
        return Outcome(done.returncode, output.read().decode(errors="replace"), done.returncode == TIMED_OUT)


def _readable() -> list[str]:
    """Return the folders and files that a program may read: those of Python and of the system, outer ones first."""
    python = [path for prefix in (sys.prefix, sys.base_prefix) for path in (prefix, os.path.realpath(prefix))]
    found = sorted({path for path in (*SYSTEM, *python) if os.path.exists(path)}, key=len)
    return [path for path in found if not any(path.startswith(f"{outer}/") for outer in found)]


def _no_sandbox(why: str) -> str:
    """Return the message for a machine that gives no sandbox."""
    last = why.strip().splitlines()[-1]
    return (
        f"untrusted code was not run, for this machine gives no sandbox ({last}): it needs Linux 5.12, x86_64 or "
        "aarch64, and user namespaces of any user. On the machine: `sysctl kernel.unprivileged_userns_clone=1`, "
        "`kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu); in a container: a seccomp profile that allows "
        "`unshare` and `mount` (Docker: `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`)"
    )
