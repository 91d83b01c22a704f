"""A command ends with one message and leaves nothing running, whatever ends it; the rest is in a file."""

import json
import logging
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import prefect.settings
import psutil
import pytest
import yaml
from processes import wait_until_gone
from runs import ROOT

from flows.prefect_server import ServerError, check_places
from flows.run_log import RunLog, redacted
from tasks.config.errors import ConfigurationError
from tasks.store.scratch import locked

PAIRS = [{"prompt": f"Question {n}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(12)]
OTHER_FLOW = """
import sys, time
from flows.command_line import main  # first: it sets what Prefect reads when it is imported
from flows.rs_dpo import rs_dpo
from prefect import flow, task
from tasks.pipeline.dry_run import PLAN

@task
def fail():
    raise RuntimeError("no luck today\\nof secret-of-the-store")

@flow(name="other")
def other(data, sft, reward_model, rewards, sampling, scoring, pairs, dpo, evaluation, monitors, compute, store):
    if PLAN.get() is not None:
        return
    print("under way", flush=True)
    fail() if sys.argv[2] == "fail" else time.sleep(60)

main(other, sys.argv[1:2])
"""


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory) -> Path:
    """Return one folder for the servers' database, so that it is made once."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture
def config(tmp_path, test_data) -> Path:
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    source = str(tmp_path / "pairs.jsonl")
    values = {
        "data": {"prompts": source, "preferences": source, "demonstrations": source, "evaluation_fraction": 0.3},
        "sft": {"base_model": str(test_data / "stories260k"), "max_steps": 100_000, "save_steps": 100_000},
        "sampling": {"engine": "transformers"},
        "store": str(tmp_path / "store"),
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "run.yaml"


@contextmanager
def started(config: Path, prefect_home: Path, *program: str, **variables: str) -> Iterator[subprocess.Popen]:
    """Run a command that writes into the files `output` and `errors` beside its configuration."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PREFECT_"))}
    clean |= {"PREFECT_HOME": str(prefect_home), "RSDPO_CACHE": str(config.parent / "cache"), "PYTHONPATH": str(ROOT)}
    clean = {name: value for name, value in (clean | variables).items() if value}
    with (config.parent / "output").open("wb") as output, (config.parent / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, *program], cwd=ROOT, env=clean, stdout=output, stderr=errors, preexec_fn=hear_signals
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def hear_signals() -> None:
    """Let a child hear the signals that nohup, or a shell that runs the tests in the background, has ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_for(process: subprocess.Popen, condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def descendants(process: subprocess.Popen) -> list[psutil.Process]:
    """Return the processes that a process has started, and those that they have."""
    return psutil.Process(process.pid).children(recursive=True)


def check_nothing_is_left(processes: list[psutil.Process]) -> None:
    assert processes, "the server was running"
    wait_until_gone(processes, seconds=5)


def message(config: Path) -> str:
    """Return what the command said about its end, after the ordinary lines of its log."""
    errors = (config.parent / "errors").read_text()
    assert "Traceback" not in errors
    assert errors.count("error: ") == 1
    before, _, last = errors.partition("error: ")
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d+ \| (INFO|WARNING)|the home folder", line) for line in before.splitlines())
    return last


def log_of(config: Path) -> str:
    """Return the file that the message names."""
    return Path(re.search(r"the whole log and traceback: (.*)", message(config))[1]).read_text()


# Commands of their own, whose server takes some seconds to start


@pytest.mark.slow  # the real pipeline, amid a training
def test_sigterm_saves_the_step_and_leaves_no_server(config, prefect_home):
    with started(config, prefect_home, "-m", "flows.rs_dpo", str(config)) as process:
        wait_for(process, lambda: list((config.parent / "cache" / "work").rglob("trainer")))
        time.sleep(1)
        left = descendants(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    check_nothing_is_left(left)
    assert message(config).startswith("ended by a signal: run again")
    assert list((config.parent / "store" / "checkpoints").rglob("step-*/manifest.json"))
    left_files = {path.name for path in (config.parent / "cache" / "work").rglob("*") if path.is_file()}
    assert left_files <= {f"{socket.gethostname()}.lock"}
    assert "TerminationSignal" in log_of(config)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        pytest.param(signal.SIGHUP, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_no_signal_leaves_a_server(config, prefect_home, number, status):
    with started(config, prefect_home, "-c", OTHER_FLOW, str(config), "sleep") as process:
        wait_for(process, lambda: "under way" in (config.parent / "output").read_text())
        left = descendants(process)
        process.send_signal(number)
        assert process.wait(30) == status
    check_nothing_is_left(left)
    if number != signal.SIGKILL:
        assert message(config).startswith("ended by a signal: run again")


def test_an_error_that_nobody_foresaw_is_one_message_and_a_file(config, prefect_home):
    variables = {"HOME": "/proc/nonexistent", "RSDPO_CACHE": "", "TMPDIR": str(config.parent)}
    with started(
        config,
        prefect_home,
        "-c",
        OTHER_FLOW,
        str(config),
        "fail",
        AWS_SECRET_ACCESS_KEY="secret-of-the-store",
        **variables,
    ) as process:
        wait_for(process, lambda: "under way" in (config.parent / "output").read_text())
        left = descendants(process)
        assert process.wait(30) == 1
    check_nothing_is_left(left)
    assert message(config).startswith("RuntimeError: no luck today\n       the whole log and traceback: ")
    log = log_of(config)
    assert "line 10, in fail\nRuntimeError: no luck today" in log
    assert "Finished in state Failed" in log
    assert "of ***" in log
    assert "secret-of-the-store" not in log + (config.parent / "errors").read_text()
    assert "home folder /proc/nonexistent cannot be written" in (config.parent / "errors").read_text()


# Places that cannot be used


@pytest.mark.parametrize(
    ("setting", "kind", "pieces"),
    [
        (
            {"PREFECT_HOME": Path("/proc/x")},
            ConfigurationError,
            ["PREFECT_HOME = /proc/x cannot be", "set PREFECT_HOME"],
        ),
        (
            {"PREFECT_API_URL": "http://127.0.0.1:9/api"},
            ServerError,
            ["PREFECT_API_URL = http://127.0.0.1:9", "refused"],
        ),
        ({"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": False}, ConfigurationError, ["PREFECT_API_URL is not set"]),
    ],
)
def test_a_place_that_cannot_be_used_is_named_at_once(setting, kind, pieces):
    changed = {getattr(prefect.settings, name): value for name, value in setting.items()}
    own = {prefect.settings.PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True, prefect.settings.PREFECT_API_URL: None}
    start = time.monotonic()
    with prefect.settings.temporary_settings({**own, **changed}), pytest.raises(kind) as caught:
        check_places()
    assert time.monotonic() - start < 5
    for piece in pieces:
        assert piece in str(caught.value)


def test_a_cache_that_cannot_be_written_stops_the_command(config, prefect_home):
    with started(config, prefect_home, "-m", "flows.rs_dpo", str(config), RSDPO_CACHE="/proc/x") as process:
        assert process.wait(60) == 2
    assert message(config).startswith("RSDPO_CACHE = /proc/x cannot be written (FileNotFoundError")
    assert "set RSDPO_CACHE" in message(config)
    assert not (config.parent / "store").exists()


@pytest.mark.slow
def test_servers_start_one_at_a_time(config, prefect_home):
    # Two that make a new database at once fail over each other's tables, once in a while.
    with ExitStack() as held:
        held.enter_context(locked(prefect_home / "server.lock", wait=True))
        with started(config, prefect_home, "-c", OTHER_FLOW, str(config), "sleep") as process:
            wait_for(process, lambda: re.search(rf"-> FLOCK .* {process.pid} ", Path("/proc/locks").read_text()))
            assert descendants(process) == []
            held.close()
            wait_for(process, lambda: "under way" in (config.parent / "output").read_text())


@pytest.mark.slow
def test_a_server_that_takes_longer_than_it_may_is_named(config, tmp_path):
    patience = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "1"}
    with started(config, tmp_path, "-c", OTHER_FLOW, str(config), "sleep", **patience) as process:
        assert process.wait(60) == 1
    assert "did not start (it did not answer, and named no error)" in message(config)
    assert "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS to more than 1\n" in message(config)


@pytest.mark.slow  # as long as a server takes to fail
def test_a_database_of_a_newer_prefect_is_named(config, tmp_path):
    with sqlite3.connect(tmp_path / "prefect.db") as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('ffffffffffff')")
    with started(config, tmp_path, "-c", OTHER_FLOW, str(config), "sleep") as process:
        assert process.wait(60) == 1
    assert "Can't locate revision identified by 'ffffffffffff'" in message(config)
    assert f"PREFECT_HOME = {tmp_path}" in message(config)


# The file


def test_secrets_do_not_show(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    monkeypatch.setenv("SOME_KEY", "ab")  # too short to be one; it would take letters out of words
    assert redacted("hf_0123456789 at https://me:pw@host/x, above") == "*** at https://***@host/x, above"


def test_the_file_goes_where_nothing_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path))
    with RunLog() as log:
        logging.getLogger("prefect.flow_runs").error("kept")
        assert "kept" in log.path.read_text()
        assert log.path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.rglob("*.log")) == []


def test_a_message_that_stands_alone_has_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path))
    with pytest.raises(KeyError) as caught, RunLog(unless=(KeyError,)):
        raise KeyError("x")
    assert not hasattr(caught.value, "__notes__")
    assert list(tmp_path.rglob("*.log")) == []
