"""Prefect's server for one command: the configured server, or a temporary one that ends with this process.

Prefect starts a temporary server by itself where it needs one. That server would outlive a process that a signal ends,
write into the terminal, and be started again for ever where it cannot start.
"""

import atexit
import functools
import os
import re
import socket
import subprocess
import sys
import time
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

import httpx
import prefect
from prefect.client.base import ServerType, determine_server_type
from prefect.client.orchestration import get_client
from prefect.context import refresh_global_settings_context
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

ATTEMPTS = 3
"""How many ports are tried: another program may take one before the server does."""
ANSWER_SECONDS = 10.0
"""How long a server may take to answer."""
END_SECONDS = 5.0
"""How long the temporary server may take to end."""
LAUNCH = "import sys; sys.modules['pandas'] = None; import uvicorn; uvicorn.main()"
"""Runs the server. Prefect imports pandas, which takes half a second, for the keys of a cache that no server has."""
SPARED = {"PREFECT_API_BLOCKS_REGISTER_ON_START": "false", "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false"}
"""What a server for one command can do without, unless the environment asks for it: a list of all types of blocks."""


class ServerError(RuntimeError):
    """Prefect's server does not answer or cannot start; the message says what to check."""


class Server(NamedTuple):
    """The temporary server."""

    process: "subprocess.Popen[bytes]"
    port: int


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
    # One at a time: two that make the same new database would fail over each other's tables.
    with locked(PREFECT_HOME.value() / "server.lock", wait=True):
        server, reason = _start(output)
    if server is not None:
        atexit.register(stop_process, server.process, END_SECONDS)
        _use(server)
        return
    raise ServerError(
        f"Prefect's temporary server did not start ({reason}): check that PREFECT_HOME = {PREFECT_HOME.value()} can be "
        "written, that its disk has space, and that no newer Prefect made the database in it; set PREFECT_HOME to "
        "another folder, PREFECT_API_URL to a server, or, where this machine is busy, "
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS to more than "
        f"{PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()}"
    )


def _start(output: Path) -> tuple[Server | None, str]:
    """Start the server, on another port where a port is taken meanwhile; return it, or None and why it did not."""
    reason = ""
    for _ in range(ATTEMPTS):
        port = _free_port()
        get_logger().info("Starting Prefect's temporary server on http://127.0.0.1:%d", port)
        server = Server(_run(port, output), port)
        if _wait(server):
            return server, ""
        reason = _last_error(output)
        if "address already in use" not in reason:
            break
    return None, reason


def _use(server: Server) -> None:
    """Have everything in this process use the server, as if it were configured.

    Prefect would look for its own temporary server in each client, and import all of its server to do so, which takes
    seconds. No link to the UI is logged, which this server does not have, and no sign of life is sent, which nobody
    waits for: the thread that sends them holds up the end of a run.
    """
    os.environ |= {"PREFECT_API_URL": f"http://127.0.0.1:{server.port}/api", "PREFECT_UI_URL": ""}
    os.environ.pop("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", None)
    refresh_global_settings_context()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


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


def _run(port: int, output: Path) -> "subprocess.Popen[bytes]":
    """Start Prefect's server as Prefect does, but with its own output, tied to this process, and deaf to its Ctrl-C."""
    program = ["-c", LAUNCH, "--app-dir", str(prefect.__module_path__.parent), "--factory"]
    address = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]
    given = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    configured = get_current_settings().to_environment_variables(exclude_unset=True)
    with output.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *program, "prefect.server.api.server:create_app", *address],
            env={**SPARED, **os.environ, **given, **configured},
            stdout=file,
            stderr=file,
            preexec_fn=functools.partial(die_with_parent, os.getpid()),
            process_group=0,
        )


def _wait(server: Server) -> bool:
    """Wait until the server answers and return whether it did; a server that does not is killed."""
    deadline = time.monotonic() + PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
    while server.process.poll() is None and time.monotonic() < deadline:
        if _is_healthy(server.port):
            return True
        time.sleep(0.1)
    server.process.kill()
    server.process.wait()
    return False


def _is_healthy(port: int) -> bool:
    """Tell whether the server answers; asked without httpx, which reads all certificates each time."""
    connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def stop_process(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Ask a process to end; one that has not after so many seconds is killed."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_error(output: Path) -> str:
    """Return the last exception in what the server printed, or that it did not answer."""
    lines = [line.strip() for line in output.read_text(errors="replace").splitlines()]
    errors = [line for line in lines if re.match(r"(\(?[\w.]+(Error|Exception)\)?:|ERROR:) ", line)]
    return (errors or ["it did not answer, and named no error"])[-1]
