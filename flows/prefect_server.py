"""Prefect's server for one command: the configured server, or a temporary one that ends with this process.

Prefect starts a temporary server by itself where it needs one. That server would outlive a process that a signal ends,
write into the terminal, and be started again for ever where it cannot start.
"""

import atexit
import functools
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import prefect
from prefect.client.base import ServerType, determine_server_type
from prefect.client.orchestration import get_client
from prefect.logging import get_logger
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_HOME,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)

from tasks.config.environment import why_not_writable
from tasks.config.errors import ConfigurationError
from tasks.pipeline.jobs import die_with_parent
from tasks.store.scratch import cache_folder, locked

if TYPE_CHECKING:
    from prefect.server.api.server import SubprocessASGIServer

ATTEMPTS = 3
"""How many ports are tried: another program may take one before the server does."""
ANSWER_SECONDS = 10.0
"""How long the configured server may take to answer."""


class ServerError(RuntimeError):
    """Prefect's server does not answer or cannot start; the message says what to check."""


def check_places() -> None:
    """Check what a run needs of its surroundings, before it begins: folders that can be written, a server that answers.

    Raises:
        ConfigurationError: A folder cannot be written, or no server may be started.
        ServerError: The server that is configured does not answer.
    """
    kind, folders = determine_server_type(), {"RSDPO_CACHE": cache_folder()}
    if kind == ServerType.EPHEMERAL:
        folders["PREFECT_HOME"] = PREFECT_HOME.value()
    for name, folder in folders.items():
        reason = why_not_writable(folder)
        if not reason:
            folder.mkdir(parents=True, exist_ok=True)  # Prefect makes no parents
        else:
            raise ConfigurationError(
                f"{name} = {folder} cannot be written ({reason}): set {name} (or HOME, where it is not set) to a "
                "folder that can be, with space on its disk"
            )
    if kind == ServerType.UNCONFIGURED:
        raise ConfigurationError(
            "PREFECT_API_URL is not set, and PREFECT_SERVER_ALLOW_EPHEMERAL_MODE is false: set one of them"
        )
    if kind != ServerType.EPHEMERAL:
        _check_answer()


def start_server(output: Path) -> None:
    """Start the temporary server where none is configured; it ends with this process, however this process ends.

    Args:
        output: File that gets what the server prints.

    Raises:
        ServerError: It did not start.
    """
    if determine_server_type() != ServerType.EPHEMERAL:
        return
    from prefect.server.api.server import SubprocessASGIServer  # takes a second

    server = SubprocessASGIServer()  # the same object that Prefect takes where it needs a server
    if server.running:
        return
    # One at a time: two that make the same new database would fail over each other's tables.
    with locked(PREFECT_HOME.value() / "server.lock", wait=True):
        reason = _start(server, output)
    if not reason:
        atexit.register(_stop, server)
        return
    raise ServerError(
        f"Prefect's temporary server did not start ({reason}): check that PREFECT_HOME = {PREFECT_HOME.value()} can be "
        "written, that its disk has space, and that no newer Prefect made the database in it; set PREFECT_HOME to "
        "another folder, PREFECT_API_URL to a server, or, where this machine is busy, "
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS to more than "
        f"{PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()}"
    )


def _start(server: "SubprocessASGIServer", output: Path) -> str:
    """Start the server, on another port where a port is taken meanwhile; return why it did not start, or ""."""
    reason = ""
    for _ in range(ATTEMPTS):
        server.port = server.find_available_port()
        get_logger().info("Starting Prefect's temporary server on %s", server.address)
        server.server_process = _run(server, output)
        server.running = _wait(server)
        reason = "" if server.running else _last_error(output)
        if "address already in use" not in reason:
            break
    return reason


def _check_answer() -> None:
    """Refuse a configured server that does not answer."""
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": ANSWER_SECONDS}, sync_client=True) as client,
        ):
            client.read_flow_runs(limit=1)
    except (RuntimeError, ValueError, httpx.HTTPError) as error:  # ValueError: what answers is no Prefect
        cause = error.__cause__ or error
        raise ServerError(
            f"Prefect's server does not answer at PREFECT_API_URL = {PREFECT_API_URL.value()} "
            f"({type(cause).__name__}: {str(cause).partition(chr(10))[0]}): start the server, or set PREFECT_API_URL "
            "and, where it asks for them, PREFECT_API_AUTH_STRING or PREFECT_API_KEY; without PREFECT_API_URL a "
            "temporary server is started"
        ) from error


def _run(server: "SubprocessASGIServer", output: Path) -> "subprocess.Popen[bytes]":
    """Start Prefect's server as Prefect does, but with its own output, tied to this process, and deaf to its Ctrl-C."""
    program = ["-m", "uvicorn", "--app-dir", str(prefect.__module_path__.parent), "--factory"]
    address = ["--host", "127.0.0.1", "--port", str(server.port), "--log-level", "error", "--lifespan", "on"]
    given = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    with output.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *program, "prefect.server.api.server:create_app", *address],
            env={**os.environ, **given, **get_current_settings().to_environment_variables(exclude_unset=True)},
            stdout=file,
            stderr=file,
            preexec_fn=functools.partial(die_with_parent, os.getpid()),
            process_group=0,
        )


def _wait(server: "SubprocessASGIServer") -> bool:
    """Wait until the server answers and return whether it did; a server that does not is killed."""
    assert server.server_process is not None
    deadline = time.monotonic() + PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
    while server.server_process.poll() is None and time.monotonic() < deadline:
        if _is_healthy(server):
            return True
        time.sleep(0.1)
    server.server_process.kill()
    server.server_process.wait()
    server.server_process = None
    return False


def _is_healthy(server: "SubprocessASGIServer") -> bool:
    try:
        return httpx.get(f"{server.api_url}/health", trust_env=False).is_success
    except httpx.TransportError:
        return False


def _stop(server: "SubprocessASGIServer") -> None:
    """Stop the server without a word: a failed run's message is the last line."""
    get_logger().setLevel(logging.WARNING)
    server.stop()


def _last_error(output: Path) -> str:
    """Return the last exception in what the server printed, or that it did not answer."""
    lines = [line.strip() for line in output.read_text(errors="replace").splitlines()]
    errors = [line for line in lines if re.match(r"(\(?[\w.]+(Error|Exception)\)?:|ERROR:) ", line)]
    return (errors or ["it did not answer, and named no error"])[-1]
