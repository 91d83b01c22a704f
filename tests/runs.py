"""Run the command line as a person would: in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


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
