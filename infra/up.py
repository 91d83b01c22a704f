"""The whole system on this machine: database, Prefect server, object store, workers, kept alive by supervisord.

make up      start what does not run yet, and set the server up; state in .rsdpo/up (RSDPO_UP)
make down    stop it all, and wait until it is gone; history and data stay
"""

import os
import select
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import Faults, SupervisorTransport

from infra.gpus import Gpus, count_gpus, share_gpus
from infra.stack import (
    BUCKET,
    ROOT,
    Stack,
    StackError,
    check_ports,
    find_postgres,
    find_stack,
    make_database,
    read_env,
    service_env,
    write_env,
)
from tasks.config.errors import ConfigurationError
from tasks.examples.world import write_world

CONFIG = Path(__file__).parent / "supervisord.conf"
WORLD = ".rsdpo/world"
"""The quickstart's data, which the deployed pipeline aligns (configs/deployed.yaml)."""
WORKERS = ("cpu-worker", "gpu-worker")
PATIENCE = 180.0
"""Seconds that the server may take until it answers; the first time it makes its tables."""


def up(stack: Stack) -> None:
    """Start what does not run yet, and give the server what it needs.

    Raises:
        ConfigurationError: A port is taken, or PostgreSQL is missing or cannot reach the folder.
        StackError: Something does not start.
    """
    programs, gpus = find_postgres(), share_gpus(count_gpus())
    running = supervisor_pid(stack) is not None
    if not running:
        check_ports(stack)
        _make_folders(stack)
        make_database(stack, programs)
    values = read_env(stack.env_file) if running else write_env(stack)
    env = service_env(stack, values, gpus, programs)
    if not running:
        _run([_tool("supervisord"), "-c", str(CONFIG)], env, stack.folder / "logs" / "start.log")
    write_world(ROOT / WORLD)
    _wait_for_server(stack, values)
    _set_up_server(stack, env, gpus)
    for group in WORKERS:
        for worker in supervisor(stack).startProcessGroup(group):
            if worker["status"] != Faults.SUCCESS:
                raise StackError(f"{worker['name']} does not start: see {stack.folder}/logs/{worker['name']}.log")
    _print_how_to(stack, values, gpus)


def down(stack: Stack) -> None:
    """Stop everything, and return when it is gone."""
    pid = supervisor_pid(stack)
    if pid is None:
        print(f"Nothing runs in {stack.folder}.")
        return
    process = os.pidfd_open(pid)
    try:
        supervisor(stack).shutdown()
        select.select([process], [], [])  # readable when it has ended, after all that it started
    finally:
        os.close(process)
    print(f"Stopped. History and data are in {stack.folder}; make up goes on from there.")


def supervisor_pid(stack: Stack) -> int | None:
    """Return the process id of the supervisor of this stack, None where none runs."""
    try:
        return int(supervisor(stack).getPID())
    except (FileNotFoundError, ConnectionRefusedError):
        return None


def supervisor(stack: Stack) -> Any:
    """Return supervisord's interface (http://supervisord.org/api.html)."""
    transport = SupervisorTransport(serverurl=f"unix://{stack.folder}/control.sock")
    return ServerProxy("http://127.0.0.1", transport=transport).supervisor


def _make_folders(stack: Stack) -> None:
    stack.folder.mkdir(parents=True, exist_ok=True)
    stack.folder.chmod(0o711)  # the database's user passes through to its own folder
    for name in ("logs", "s3", f"s3/{BUCKET}", "prefect"):
        (stack.folder / name).mkdir(mode=0o700, exist_ok=True)


def _wait_for_server(stack: Stack, values: dict[str, str]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        try:
            opener.open(f"{values['PREFECT_API_URL']}/health", timeout=10).close()
            return
        except OSError:
            _check_programs(stack)
            time.sleep(0.5)
    raise StackError(f"Prefect's server did not answer within {PATIENCE:.0f} s: see {stack.folder}/logs/server.log")


def _check_programs(stack: Stack) -> None:
    for program in supervisor(stack).getAllProcessInfo():
        if program["statename"] == "FATAL":
            raise StackError(f"{program['name']} does not start: see {program['stdout_logfile']}; make down cleans up")


def _set_up_server(stack: Stack, env: dict[str, str], gpus: Gpus) -> None:
    logs, given = stack.folder / "logs", ["--gpus", str(gpus.total), "--gpus-per-worker", str(gpus.per_worker)]
    _run([sys.executable, "-m", "infra.apply", *given], env, logs / "apply.log")
    _run([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], env, logs / "deploy.log")


def _run(command: list[str], env: dict[str, str], log: Path) -> None:
    """Run a command, its output in a file; where it fails, the end of the file is shown."""
    with log.open("w") as output:
        code = subprocess.run(command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT).returncode
    if code:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise StackError(f"{' '.join(command)} failed; the end of {log}:\n{end}")


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _print_how_to(stack: Stack, values: dict[str, str], gpus: Gpus) -> None:
    folder = stack.folder.relative_to(ROOT) if stack.folder.is_relative_to(ROOT) else stack.folder
    workers = f"{gpus.workers} with {gpus.per_worker} GPU{'s' if gpus.per_worker > 1 else ''} each"
    if not gpus.found:
        workers = "1 for GPU stages, which computes on the CPU (no NVIDIA GPU found)"
    print(
        f"Prefect       {values['PREFECT_API_URL'].removesuffix('/api')}\n"
        f"its key       PREFECT_API_AUTH_STRING in {folder}/env\n"
        f"object store  {values['AWS_ENDPOINT_URL']}  (the store: {values['RSDPO_STORE']})\n"
        f"workers       1 for pipelines, {workers}\n"
        f"logs          {folder}/logs\n"
        "Next:\n"
        f"  source {folder}/env\n"
        f"  .venv/bin/python -m flows.add_prompts {WORLD}/prompts.jsonl --store $RSDPO_STORE   # a pipeline starts\n"
        "  .venv/bin/prefect deployment run rs-dpo/scheduled --watch                          # or start one"
    )


def main() -> None:
    """Start or stop the stack; exit with one message: 2 where something is set wrong, 1 where a program fails."""
    action = {"up": up, "down": down}.get(sys.argv[-1])
    if action is None or len(sys.argv) != 2:
        raise SystemExit("usage: python -m infra.up up|down")
    try:
        action(find_stack())
    except (ConfigurationError, StackError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigurationError) else 1) from error


if __name__ == "__main__":
    main()
