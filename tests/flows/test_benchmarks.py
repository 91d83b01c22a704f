"""The benchmarks at their smallest: they still run, and what they count is right."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from results import made
from runs import ROOT

from flows.compare import keep

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


@pytest.mark.parametrize(
    ("name", "options"),
    [("dpo", []), ("scoring", ["--prompts", "2"]), ("sampling", []), ("selection", []), ("store", [])],
)
def test_both_sides(name: str, options: list[str], tmp_path: Path) -> None:
    """From a copy, so that figures that mean nothing do not replace those in results.json."""
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    command = [sys.executable, f"benchmarks/{name}.py", *options, "--rounds", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "at least" in done.stdout


def test_browser() -> None:
    figures = printed("browser", "--prompts", "60", "--k", "4")
    assert 0 < figures["threshold"][0] < figures["threshold"][1] + 1
    assert figures["opening, until all is read"] > 0


def test_null_comparison(tmp_path: Path) -> None:
    arms = made({"one": (1.0,), "other": (2.0,)}, seeds=10)
    results = [each for own in arms.results.values() for each in own]
    kept = keep(str(tmp_path / "store"), results, {"": (arms, [])})
    figures = printed("null_comparison", kept.uri, "--splits", "40")
    assert [(each["arm"], each["seeds"]) for each in figures["arms"]] == [("one", 10), ("other", 10)]
    assert all(0 <= each["told_apart"] <= each["interval"][1] for each in figures["arms"])
    assert 0 <= figures["mean"] < 0.4
    refused = [sys.executable, "benchmarks/null_comparison.py", "nowhere"]
    done = subprocess.run(refused, cwd=ROOT, capture_output=True, text=True)
    assert "nowhere is no comparison: give what `flows.compare` prints" in done.stderr


def test_faults() -> None:
    assert printed("faults", "--kills", "1")["kills"] == 1
