"""What a real run leaves: a model with a card that transformers and TRL load and vLLM serves."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
import pytest
import torch
import yaml
from datasets import Dataset
from runs import ROOT, on_small_world, plan, run, written
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from flows.config_files import load_config
from tasks.examples.world import write_world
from tasks.store.copies import fetch
from tasks.store.folders import Store

pytestmark = pytest.mark.slow
QUESTION = [{"role": "user", "content": "Tell me where the mouse lives."}]
STARTS = 180
"""Seconds in which a server must answer."""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, seed=0, scale=0.1)
    return folder


@pytest.fixture(scope="module")
def settings(world, tmp_path_factory) -> dict[str, object]:
    return on_small_world(world, tmp_path_factory.mktemp("run") / "store", dpo__extra__report_to="tensorboard")


@pytest.fixture(scope="module")
def aligned(settings) -> Path:
    """Return the folder of a run's aligned model."""
    result = run("quickstart.yaml", **settings)
    model = Store(str(settings["store"])).find("/".join(result["artifacts"]["aligned"]["uri"].split("/")[-2:]))
    assert model is not None
    return fetch(model)


def greedy(folder: Path) -> str:
    """Return the answer as transformers generates it."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    given = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        drawn = model.generate(**given, do_sample=False, max_new_tokens=16)
    return tokenizer.decode(drawn[0, given["input_ids"].shape[1] :], skip_special_tokens=True)


@contextmanager
def served(folder: Path, output: Path) -> Iterator[str]:
    """Serve a model as its card says, and yield the address."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [str(Path(sys.executable).parent / "vllm"), "serve", str(folder), "--host", "127.0.0.1"]
    command += ["--port", url.rpartition(":")[2], "--max-model-len", "128", "--enforce-eager"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": str(named_vllm(output.parent))}
    with output.open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + STARTS
        while not answers(url):
            assert server.poll() is None, output.read_text()[-3000:]
            assert time.monotonic() < until, output.read_text()[-3000:]
            time.sleep(0.5)
        yield url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # its engine is a process of its own
        server.wait()


def named_vllm(folder: Path) -> Path:
    """Return a folder that has the name `vllm` for the CPU build, whose own command looks for it in vain (0.32.0)."""
    told = folder / "vllm-0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {vllm_version()}\n")
    return folder


def vllm_version() -> str:
    """Return the version of vLLM, whatever its build is called."""
    try:
        return version("vllm")
    except PackageNotFoundError:
        return f"{version('vllm-cpu')}+cpu"


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_the_run_has_left_a_card(aligned, settings, tmp_path):
    card = (aligned / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["tags"] == ["rs-dpo", "dpo"]
    assert re.search(r"\| win rate over sft by gold \|  \| 0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\] \|", card)
    (tmp_path / "run.yaml").write_text(re.findall(r"```yaml\n(.*?)```", card, re.S)[0])
    repeated = load_config(str(tmp_path / "run.yaml"), [f"store={settings['store']}"])
    assert repeated == load_config(
        str(ROOT / "configs/quickstart.yaml"), [f"{n.replace('__', '.')}={v}" for n, v in settings.items()]
    )
    assert [path.name for path in (aligned / "tensorboard").iterdir()] == ["events.out.tfevents.000"]


def test_a_run_sees_no_damage_in_a_card(aligned, settings):
    before, card = written(Path(str(settings["store"]))), (aligned / "README.md").stat().st_mtime_ns
    assert set(plan("quickstart.yaml", **settings).values()) == {"reuse"}
    run("quickstart.yaml", **settings)
    assert written(Path(str(settings["store"]))) == before
    assert (aligned / "README.md").stat().st_mtime_ns > card  # it is of the last run


def test_transformers_loads_it(aligned):
    chat = pipeline("text-generation", model=str(aligned))
    answer = chat(QUESTION, do_sample=False, max_new_tokens=16)[0]["generated_text"][-1]
    assert answer == {"role": "assistant", "content": greedy(aligned)}
    assert answer["content"]


def test_trl_trains_it_further(aligned, tmp_path):
    answers = {"chosen": "Its home is the garden.", "rejected": "I do not know."}
    sides = {name: [{"role": "assistant", "content": text}] for name, text in answers.items()}
    pairs = Dataset.from_list([{"prompt": QUESTION, **sides}] * 2)
    shown = Dataset.from_list([{"messages": [*QUESTION, *sides["chosen"]]}] * 2)
    settings = {"output_dir": str(tmp_path), "max_steps": 1, "use_cpu": True, "bf16": False, "report_to": "none"}
    DPOTrainer(str(aligned), args=DPOConfig(**settings), train_dataset=pairs).train()
    SFTTrainer(str(aligned), args=SFTConfig(**settings), train_dataset=shown).train()


def test_vllm_serves_it(aligned, tmp_path):
    with served(aligned, tmp_path / "log") as url:
        asked = {"model": str(aligned), "messages": QUESTION, "temperature": 0, "max_tokens": 16}
        reply = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60, trust_env=False).json()
    (choice,) = reply["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == greedy(aligned)
    assert choice["finish_reason"] in ("stop", "length")
