"""What a command imports before it answers, as a real process reports it: no library of seconds is loaded in vain."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from runs import ROOT

FLOWS = (
    *("rs_dpo", "quickstart", "chat", "compare", "rounds", "add_prompts", "add_preferences", "ask", "browse"),
    *("judge_policies", "judge_rewards", "publish", "revise", "status", "store"),
)
MODELS = {"torch", "transformers", "trl", "vllm", "peft", "accelerate", "datasets", "tokenizers"}
"""Needed where a model or its tokenizer is loaded."""
REMOTE = {"aiobotocore", "botocore", "s3fs", "aiohttp", "huggingface_hub"}
"""Needed where something is not on this machine."""
HEAVY = MODELS | REMOTE | {"prefect", "pandas", "pyarrow", "duckdb", "fastapi", "matplotlib", "scipy", "jinja2", "rich"}
"""Not needed to read a command line and its settings."""


def run(folder, *arguments):
    """Run a command; return its status, what it printed, and the packages that it imported."""
    places = {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(folder / "prefect"), "RSDPO_CACHE": str(folder / "cache")}
    command = [sys.executable, "-X", "importtime", "-m", *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **places}, capture_output=True, text=True, timeout=300
    )
    names = re.findall(r"^import time: +\d+ \| +\d+ \| +([\w.]+)$", done.stderr, re.M)
    said = done.stdout + re.sub(r"^import time: .*\n", "", done.stderr, flags=re.M)
    return done.returncode, said, {name.partition(".")[0] for name in names}


def test_every_command_is_looked_at():
    with_main = {path.stem for path in ROOT.glob("flows/*.py") if 'if __name__ == "__main__"' in path.read_text()}
    assert with_main == set(FLOWS)


def test_what_is_imported_is_seen(tmp_path):
    (tmp_path / "heavy.py").write_text("import pyarrow\n")
    status, _, imported = run(tmp_path, "heavy")
    assert status == 0
    assert imported & HEAVY == {"pyarrow"}


@pytest.mark.parametrize("name", FLOWS)
def test_help_and_a_wrong_flag_load_nothing_heavy(tmp_path, name):
    status, said, imported = run(tmp_path, f"flows.{name}", "--help")
    assert (status, said[:6]) == (0, "usage:")
    assert not imported & HEAVY
    status, said, imported = run(tmp_path, f"flows.{name}", "--flagg", *["x"] * 3)
    assert status == 2
    assert "--flagg" in said or "invalid choice" in said
    assert not imported & HEAVY


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rs_dpo", "run.yaml", "--set", "dpo.bta=1"], "error: dpo.bta is no known setting: check its spelling"),
        (["rs_dpo", "nothing.yaml"], "error: configuration file nothing.yaml does not exist"),
        (["compare", "nothing.yaml"], "error: configuration file nothing.yaml does not exist"),
        (["judge_policies", "run.yaml"], "error: data is no known setting: check its spelling"),
        (["judge_rewards", "run.yaml"], "error: rewards: Field required"),
        (["rounds", "run.yaml"], "error: base: Field required"),
    ],
)
def test_what_is_typed_wrong_is_told_before_anything_heavy_is_loaded(tmp_path, arguments, message):
    (tmp_path / "run.yaml").write_text("data: {prompts: p.jsonl}\nsft: {ready_model: m}\n")
    status, said, imported = run(tmp_path, f"flows.{arguments[0]}", *arguments[1:])
    assert status == 2
    assert message in said
    assert not imported & HEAVY


def test_a_dry_run_of_what_is_there_loads_no_model(tmp_path):
    """The first one checks the model, the second one remembers that it passed."""
    shutil.copytree(ROOT / "tests/stores/0.2.0", tmp_path / "copy")
    dry = ("flows.rs_dpo", "config.yaml", "--dry-run")
    status, first, imported = run(tmp_path / "copy", *dry)
    assert status == 0, first
    assert {"torch", "transformers"} <= imported
    status, second, imported = run(tmp_path / "copy", *dry)
    assert (status, second) == (0, first)
    assert not imported & (MODELS | REMOTE | {"matplotlib", "duckdb"})  # pandas is Prefect's
