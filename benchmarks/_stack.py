"""The system of `make up` on ports and in a folder of its own, for benchmarks that run deployments."""

import contextlib
import contextvars
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
from prefect import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from infra.stack import ROOT, Stack, find_stack, read_env
from infra.up import supervisor
from tasks.pipeline.dispatch import GPU_LIMIT


@contextlib.contextmanager
def stack() -> Iterator[Stack]:
    """Start the system, set the environment that its clients need, and stop it afterwards."""
    with tempfile.TemporaryDirectory(prefix="rsdpo-") as folder, socket.socket() as one, socket.socket() as two:
        os.chmod(folder, 0o755)  # the database's user passes through
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = {"PREFECT_SERVER_API_PORT": one.getsockname()[1], "RSDPO_S3_PORT": two.getsockname()[1]}
        os.environ.update({"RSDPO_UP": f"{folder}/up", **{name: str(port) for name, port in ports.items()}})
        one.close()
        two.close()
        try:
            _make("up")
            found = find_stack()
            values = read_env(found.env_file)
            os.environ.update(values, NO_PROXY="127.0.0.1", RSDPO_CACHE=f"{folder}/cache")
            # This process has read its settings already.
            with temporary_settings({name: values[name.name] for name in (PREFECT_API_URL, PREFECT_API_AUTH_STRING)}):
                yield found
        finally:
            _make("down")


class Slots:
    """Watches the slots of the GPU limit: a look every 0.1 s, which finds the moments when none is taken."""

    def __init__(self) -> None:
        """Begin to watch, until the process ends."""
        self.free_at = 0.0
        """When none was taken last, by the monotonic clock."""
        settings = contextvars.copy_context()  # where the server is
        threading.Thread(target=settings.run, args=(self._watch,), daemon=True).start()

    def _watch(self) -> None:
        while True:
            with contextlib.suppress(httpx.HTTPError, OSError), get_client(sync_client=True) as client:
                if client.read_global_concurrency_limit_by_name(GPU_LIMIT).active_slots == 0:
                    self.free_at = time.monotonic()
            time.sleep(0.1)


def pid_of(found: Stack, program: str) -> int:
    """Return the process id of a program that supervisord runs: server, s3, cpu-worker, gpu-worker:gpu-worker-0."""
    return int(supervisor(found).getProcessInfo(program)["pid"])


def wait_for(what: str, condition: Any, seconds: float = 600.0) -> Any:
    """Return what the condition returns once it is true.

    Raises:
        TimeoutError: It does not become true.
    """
    give_up = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.2)
    return value


def _make(action: str) -> None:
    subprocess.run([sys.executable, "-m", "infra.up", action], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
