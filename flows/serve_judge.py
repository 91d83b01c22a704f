"""Serve a model as a judge with `vllm serve`, on a worker of the GPU pool or here, until it is cancelled.

prefect deployment run serve-judge/gpu -p model=Qwen/Qwen3-8B -p hours=4

`judge.base_url` is then `http://127.0.0.1:8400/v1` on that machine.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import httpx
from prefect import flow
from pydantic import Field

from flows.prefect_server import stop_process
from flows.stages import gpus
from tasks.config.errors import ConfigurationError
from tasks.config.sections import ModelSource
from tasks.judges.endpoint import is_loopback
from tasks.models.locate import locate_model
from tasks.pipeline.jobs import die_with_parent
from tasks.pipeline.progress import log

SERVER = "vllm.entrypoints.openai.api_server"
"""What `vllm serve` runs; that command asks for a package `vllm`, which vLLM's build for CPUs is not called."""
KEY = "VLLM_API_KEY"
"""Variable from which `vllm serve` takes the key that it asks for."""
POLL_SECONDS = 1.0
END_SECONDS = 20.0
"""How long the server may take to end."""


@flow(name="serve-judge", flow_run_name="{model} as {name}")
def serve_judge(
    model: str,
    name: str = "judge",
    address: str = "127.0.0.1:8400",
    slots: Annotated[int, Field(ge=0)] = 1,
    hours: Annotated[float, Field(gt=0)] | None = None,
    options: tuple[str, ...] = (),
) -> None:
    """Serve a model until the run is cancelled.

    Args:
        model: Folder, URI in a store, or hub id of a model with a chat template.
        name: What `judge.model` calls it.
        address: Where it listens. Beyond this machine it needs the key that VLLM_API_KEY holds on the worker.
        slots: GPUs to hold meanwhile, so that no stage computes on them; 0 where there are none.
        hours: When to end; null: never.
        options: Further arguments of `vllm serve`, such as `--tensor-parallel-size=2`.

    Raises:
        ConfigurationError: There is no such model, the address is open to everybody, or the server ends by itself.
    """
    check_address(address)
    folder = locate_model(ModelSource(path=model))
    with ExitStack() as stack:
        if slots:
            stack.enter_context(gpus(slots))
        server = stack.enter_context(serving(folder, name, address, options))
        wait(server, None if hours is None else time.monotonic() + 3600 * hours)


def check_address(address: str) -> None:
    """Refuse an address that is none, and one that others can reach without a key.

    Raises:
        ConfigurationError: Says what to set.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigurationError(f"address = {address!r} must be a host and a port, such as 127.0.0.1:8400")
    if not is_loopback(f"http://{address}") and not os.environ.get(KEY):
        raise ConfigurationError(
            f"address = {address!r} can be reached from elsewhere: set {KEY} on the worker to a key of your own, and "
            "judge.api_key_variable to a variable with the same key, or listen on 127.0.0.1"
        )


@contextmanager
def serving(folder: Path, name: str, address: str, options: tuple[str, ...]) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the server of a model, and give it once it answers; end it afterwards.

    Raises:
        ConfigurationError: It ends before it answers.
    """
    log(f"starting vLLM with {folder}, which takes a minute or more")
    host, _, port = address.rpartition(":")
    command = [sys.executable, "-m", SERVER, "--model", str(folder), "--served-model-name", name]
    command += ["--host", host, "--port", port, *options]
    server = subprocess.Popen(command, preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM))
    try:
        while not _answers(address):
            _check_runs(server)
            time.sleep(POLL_SECONDS)
        log(f"serving {folder.name} as {name}: set judge.model to {name} and judge.base_url to http://{address}/v1")
        yield server
    finally:
        stop_process(server, END_SECONDS)


def wait(server: "subprocess.Popen[bytes]", until: float | None) -> None:
    """Wait until a time, by the clock of `time.monotonic`; None: for ever.

    Raises:
        ConfigurationError: The server ends before.
    """
    while until is None or time.monotonic() < until:
        _check_runs(server)
        time.sleep(POLL_SECONDS)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/health", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _check_runs(server: "subprocess.Popen[bytes]") -> None:
    if (status := server.poll()) is not None:
        raise ConfigurationError(
            f"vllm serve ended with status {status}: its last lines in the worker's output say why, such as a "
            "port that is taken, or a model that does not fit the GPU's memory (options: --max-model-len)"
        )
