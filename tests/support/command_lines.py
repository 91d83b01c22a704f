"""A small folder to run the command line in, and what must not be left in it."""

import contextlib
import io
import os
import subprocess
import sys

import pytest
from runs import ROOT

from flows.command_line import main
from flows.rs_dpo import rs_dpo

PAIRS = [{"prompt": f"Question {n}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(40)]


def files(folder):
    return [path for path in (folder / "store").rglob("*") if path.is_file()]


def refused(folder, *arguments, config="run.yaml"):
    """Run in this process what must be refused; return its message."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as caught:
        main(rs_dpo, [str(folder / config), *arguments])
    assert caught.value.code == 2
    assert files(folder) == []
    message = errors.getvalue()[errors.getvalue().index("error: ") :].strip()
    assert message.startswith("error: ")
    return message


def overrides(**settings):
    return [part for name, value in settings.items() for part in ("--set", f"{name.replace('__', '.')}={value}")]


def write(path, text):
    path.write_text(text)
    return str(path)


def run(folder, *arguments, **environment):
    """Run the command as a person would; return its exit code, standard output and standard error."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    clean |= {"PREFECT_HOME": str(folder / "prefect"), "RSDPO_CACHE": str(folder / "cache"), **environment}
    command = [sys.executable, "-m", "flows.rs_dpo", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr
