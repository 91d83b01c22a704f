"""`make up`: its folder, secrets and ports; and the whole stack for real."""

import base64
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from runs import ROOT
from s3fs import S3FileSystem

from infra.apply import START, automations, job_template
from infra.gpus import count_gpus
from infra.stack import Stack, check_ports, find_postgres, find_stack, read_env, write_env
from infra.up import supervisor_pid
from tasks.pipeline.dispatch import GPU_LIMIT

SECRETS = {"PREFECT_API_AUTH_STRING", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """Return a stack on free ports, of which nothing runs."""
    return Stack(tmp_path, free_port(), free_port())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_secrets_are_made_once_and_for_the_owner_alone(stack: Stack) -> None:
    first = write_env(stack)
    again = write_env(stack._replace(api_port=1234))
    assert stack.env_file.stat().st_mode & 0o777 == 0o600
    assert all(again[name] == first[name] for name in SECRETS)
    assert again["PREFECT_API_URL"] == "http://127.0.0.1:1234/api"
    assert read_env(stack.env_file) == again, "a second `make up` takes its environment from the file"


def test_the_env_file_can_be_sourced(stack: Stack) -> None:
    values = write_env(stack)
    shell = ["bash", "-euc", f"source {shlex.quote(str(stack.env_file))}; env"]
    env = {"AWS_PROFILE": "other", "no_proxy": "corp"}
    printed = subprocess.run(shell, env=env, capture_output=True, text=True, check=True).stdout
    assert {f"{name}={value}" for name, value in values.items()} <= set(printed.splitlines())
    assert {f"{name}=127.0.0.1,localhost,corp" for name in ("NO_PROXY", "no_proxy")} <= set(printed.splitlines())
    assert "AWS_PROFILE" not in printed


def test_a_port_in_use_is_refused(stack: Stack) -> None:
    check_ports(stack)
    with socket.socket() as other:
        other.bind(("127.0.0.1", stack.s3_port))
        other.listen()
        with pytest.raises(ValueError, match=rf"port {stack.s3_port} is in use.*RSDPO_S3_PORT"):
            check_ports(stack)


def test_a_path_too_long_for_a_socket_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSDPO_UP", "/" + "a" * 83)  # with /postgres/.s.PGSQL.5432: 107 bytes
    assert find_stack().api_port == 4200
    monkeypatch.setenv("RSDPO_UP", "/" + "a" * 84)
    with pytest.raises(ValueError, match=r"107 bytes.*RSDPO_UP"):
        find_stack()


def test_a_port_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", "http")
    with pytest.raises(ValueError, match="PREFECT_SERVER_API_PORT = 'http' must be a port"):
        find_stack()


def fake_nvidia_smi(folder: Path) -> None:
    """Write a program that lists four GPUs as NVIDIA's does."""
    folder.mkdir()
    lines = "".join(f"echo 'GPU {i}: NVIDIA H100 (UUID: GPU-{i + 1})'\n" for i in range(4))
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{lines}")
    (folder / "nvidia-smi").chmod(0o755)


def test_gpus_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert count_gpus() == 0
    fake_nvidia_smi(tmp_path / "bin")
    assert count_gpus() == 4


class Running:
    """`make up` with a folder and ports of its own, on a machine that seems to have four GPUs, two a worker."""

    def __init__(self, folder: Path) -> None:
        self.stack = Stack(folder / "up", free_port(), free_port())
        self.tools = folder / "bin"
        fake_nvidia_smi(self.tools)

    def make(self, target: str) -> str:
        """Run `make up` or `make down` as the Makefile does, without the install."""
        env = {
            **os.environ,
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "RSDPO_UP": str(self.stack.folder),
            "RSDPO_GPUS_PER_WORKER": "2",
            "PREFECT_SERVER_API_PORT": str(self.stack.api_port),
            "RSDPO_S3_PORT": str(self.stack.s3_port),
        }
        command = [sys.executable, "-m", "infra.up", target]
        result = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert result.returncode == 0, result.stdout
        return result.stdout

    def ask(self, method: str, path: str, body: Any = None, key: bool = True) -> Any:
        """Ask the server's API, with its key or without."""
        headers = {"Content-Type": "application/json"}
        if key:
            secret = read_env(self.stack.env_file)["PREFECT_API_AUTH_STRING"]
            headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
        url = f"http://127.0.0.1:{self.stack.api_port}/api/{path}"
        data = None if body is None else json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(url, data, headers, method=method), timeout=30) as answer:
            return json.load(answer)

    def processes(self) -> list[psutil.Process]:
        """Return every live process that was started with this stack's environment."""
        mine = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("RSDPO_UP") == str(self.stack.folder):
                    mine.append(process)
            except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
                continue
        return mine

    def services(self) -> set[int]:
        """Return the process ids of what supervisord keeps alive."""
        pid = supervisor_pid(self.stack)
        assert pid is not None
        return {process.pid for process in psutil.Process(pid).children()}

    def process(self, *words: str) -> psutil.Process:
        """Return the one process whose command holds these words."""
        (found,) = [p for p in self.processes() if set(words) <= set(p.cmdline())]
        return found


@pytest.fixture
def running() -> Iterator[Running]:
    """Run the stack, outside of pytest's folders, which the database's user may not enter; and stop it."""
    try:
        find_postgres()
    except ValueError as error:
        pytest.skip(str(error))
    folder = Path(tempfile.mkdtemp(prefix="rs-dpo-up-"))
    folder.chmod(0o755)
    stack = Running(folder)
    try:
        yield stack
        stack.make("down")
        assert stack.processes() == []
    finally:
        for process in stack.processes():
            process.kill()
        shutil.rmtree(folder)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, for three minutes at most."""
    for _ in range(360):
        if condition():
            return
        time.sleep(0.5)
    raise AssertionError("did not happen within three minutes")


def status(ask: Callable[[], Any]) -> int:
    try:
        ask()
    except urllib.error.HTTPError as error:
        return error.code
    return 200


@pytest.mark.slow
def test_make_up(running: Running) -> None:
    assert "PREFECT_API_AUTH_STRING in" in running.make("up")
    check_locked(running)
    check_set_up(running)
    deployments = {d["id"] for d in running.ask("POST", "deployments/filter", {})}
    services = running.services()

    running.make("up")
    assert running.services() == services

    server = running.process("server", "start")
    server.send_signal(signal.SIGKILL)
    server.wait(60)
    eventually(lambda: reachable(running))
    assert running.process("server", "start").pid != server.pid

    running.make("down")
    assert running.processes() == []
    running.make("up")
    assert {d["id"] for d in running.ask("POST", "deployments/filter", {})} == deployments


def reachable(running: Running) -> bool:
    try:
        running.ask("GET", "health")
    except OSError:
        return False
    return True


def check_locked(running: Running) -> None:
    """Check that nobody gets in without the key, from no other machine, and that the keys show nowhere."""
    assert status(lambda: running.ask("POST", "flows/filter", {}, key=False)) == 401
    assert running.ask("POST", "flows/filter", {}) != []
    values = read_env(running.stack.env_file)
    assert buckets(values) == ["rs-dpo"]
    for other in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        with pytest.raises(PermissionError):
            buckets({**values, other: "guessed"})
    listening = {c.laddr for p in running.processes() for c in p.net_connections("inet") if c.status == "LISTEN"}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {running.stack.api_port, running.stack.s3_port} <= {address.port for address in listening}
    keys = [values[name].removeprefix("admin:") for name in SECRETS]
    shown = [" ".join(p.cmdline()) for p in running.processes()]
    shown += [log.read_text() for log in (running.stack.folder / "logs").iterdir()]
    assert not any(key in text for key in keys for text in shown)


def buckets(values: dict[str, str]) -> list[str]:
    fs = S3FileSystem(
        key=values["AWS_ACCESS_KEY_ID"],
        secret=values["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=values["AWS_ENDPOINT_URL"],
        skip_instance_cache=True,
    )
    names: list[str] = fs.ls("")
    return names


def check_set_up(running: Running) -> None:
    """Check that the server has what `infra.apply` gives it, and workers."""
    pools = {pool["name"]: pool for pool in running.ask("POST", "work_pools/filter", {})}
    assert pools["rs-dpo-gpu"]["base_job_template"] == job_template("process", 2)
    assert running.ask("GET", f"v2/concurrency_limits/{GPU_LIMIT}")["limit"] == 4
    workers = pools["rs-dpo-gpu"]["concurrency_limit"]
    assert workers == 2
    seen = [p.environ()["CUDA_VISIBLE_DEVICES"] for p in running.processes() if "rs-dpo-gpu" in p.cmdline()]
    assert sorted(seen) == ["0,1", "2,3"]
    queues = {q["name"]: q["priority"] for q in running.ask("POST", "work_pools/rs-dpo-gpu/queues/filter", {})}
    assert queues == {"finish": 1, "default": 2}
    names = [automation["name"] for automation in running.ask("POST", "automations/filter", {})]
    ours = [automation.name for automation in automations(START["process"])]
    assert sorted(names) == sorted(
        [*ours, *(f"Align when {what} have been added" for what in ("prompts", "preferences"))]
    )
    eventually(lambda: (online(running, "rs-dpo-cpu"), online(running, "rs-dpo-gpu")) == (1, workers))


def online(running: Running, pool: str) -> int:
    workers = running.ask("POST", f"work_pools/{pool}/workers/filter", {})
    return sum(worker["status"] == "ONLINE" for worker in workers)
