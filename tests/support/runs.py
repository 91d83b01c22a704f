"""Run the command line as a person would: in a process of its own; and the quickstart at a reduced size."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The project."""
SUPPORT = Path(__file__).parent
SMALL = {
    "data__max_prompts": 24,
    "data__max_evaluation_prompts": 8,
    "sft__max_steps": 30,
    "sft__save_steps": 10,
    "reward_model__max_steps": 12,
    "sampling__k": 4,
    "sampling__max_new_tokens": 16,
    "sampling__part_size": 8,
    "pairs__tau": 0.01,
    "pairs__truncated": "keep",
    "dpo__max_steps": 12,
    "dpo__batch_size": 8,
    "dpo__save_steps": 4,
    "evaluation__k": 2,
}


def on_small_world(world: Path, store: Path | str, **changes: object) -> dict[str, object]:
    """Return the overrides that run the quickstart's configuration on a world that `write_world` wrote small."""
    files = ("prompts", "demonstrations", "preferences", "evaluation_prompts")
    paths = {f"data__{name}": world / f"{name}.jsonl" for name in files}
    return {**SMALL, **paths, "sft__base_model": world / "base_model", "store": store, **changes}


def command(config: str, **settings: object) -> list[str]:
    """Return the command that runs a configuration of configs/ with overrides; `__` stands for a dot."""
    overrides = [part for name, value in settings.items() for part in ("--set", f"{name.replace('__', '.')}={value}")]
    return [sys.executable, "-m", "flows.rs_dpo", str(ROOT / "configs" / config), *overrides, "--json"]


def run(config: str, **settings: object) -> dict:
    """Run to the end and return the last line of JSON."""
    arguments = command(config, **settings)
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def plan(config: str, **settings: object) -> dict[str, str]:
    """Return what a dry run would do with each stage."""
    arguments = [*command(config, **settings), "--dry-run"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, timeout=200, check=True)
    return {step["stage"]: step["action"] for step in json.loads(done.stdout.splitlines()[-1])["plan"]}


def digests(result: dict) -> dict[str, str]:
    """Return the digest of every artifact of a run."""
    return {name: artifact["digest"] for name, artifact in result["artifacts"].items()}


@contextmanager
def started(output: Path, config: str, **settings: object) -> Iterator[subprocess.Popen]:
    """Start a run in a process group of its own, which is killed at the end of the block.

    Args:
        output: Folder that gets what the run prints: `stdout` and `stderr`.
        config: A configuration of configs/.
        settings: Overrides.
    """
    output.mkdir(parents=True, exist_ok=True)
    with (output / "stdout").open("wb") as stdout, (output / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            command(config, **settings), stdout=stdout, stderr=stderr, cwd=ROOT, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(process: subprocess.Popen, store: Path, appears: str) -> None:
    """Wait until a path matches in the folder of a store that a run fills."""
    deadline = time.monotonic() + 300
    while not any(store.glob(appears)):
        assert process.poll() is None, f"the run ended before {appears} appeared"
        assert time.monotonic() < deadline, f"{appears} never appeared"
        time.sleep(0.02)


def written(store: Path) -> dict[str, int]:
    """Return the manifests in the folder of a store, but for records of runs, with the nanosecond of their writing."""
    found = {str(path.relative_to(store)): path.stat().st_mtime_ns for path in store.rglob("manifest.json")}
    return {path: time for path, time in found.items() if not path.startswith("runs/")}
