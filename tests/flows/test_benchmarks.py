"""The benchmarks of the deployed system at their smallest: they still run, and what they count is right."""

import json
import subprocess
import sys
from typing import Any

import pytest
from runs import ROOT

pytestmark = pytest.mark.slow


def printed(name: str, *options: str) -> Any:
    """Run a benchmark to its end; return its last line of JSON."""
    command = [sys.executable, f"benchmarks/{name}.py", *options, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_dispatch() -> None:
    figures = printed("dispatch", "--rounds", "1")
    assert 0 < figures["task_s"][0] < figures["dispatched_s"][0]
    assert 0 < figures["imports_s"][0] < figures["dispatched_s"][0]


def test_new_prompts() -> None:
    first, more, none = printed("new_prompts", "--prompts", "20", "--more", "2")
    assert (first["prompts"], first["sampled"]) == (20, 20)
    assert (more["prompts"], more["sampled"]) == (22, 2)
    assert (none["prompts"], none["sampled"], none["gpu_runs"]) == (22, 0, 0)
    assert first["gpu_runs"] > more["gpu_runs"] > 0
