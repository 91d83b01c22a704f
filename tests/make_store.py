"""Write the store that this release is remembered by, `tests/stores/<version>`: `python -m tests.make_store`.

The quickstart's world at scale 0.05 and a model of 30,000 parameters go through the whole chain. World, base model,
configuration and store are kept as files, so that later releases can be asked to find every artifact in them. Paths are
relative, records of runs are left out: nothing tells of the machine that wrote them.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
STORES = ROOT / "tests" / "stores"
CONFIG = """\
# No gold reward: its key is that of its source, which may change.
data:
  prompts: world/prompts.jsonl
  demonstrations: world/demonstrations.jsonl
  preferences: world/preferences.jsonl
  evaluation_prompts: world/evaluation_prompts.jsonl
  max_evaluation_prompts: 4
sft:
  base_model: world/base_model
  dtype: bfloat16
  learning_rate: 3.0e-3
  max_steps: 4
  max_length: 64
reward_model:
  dtype: bfloat16
  learning_rate: 1.0e-3
  max_steps: 4
  max_length: 64
sampling:
  k: 4
  max_new_tokens: 8
  part_size: 8
  engine: transformers
pairs:
  tau: 0.001
  truncated: keep
dpo:
  dtype: bfloat16
  learning_rate: 3.0e-4
  max_steps: 4
  batch_size: 8
  max_length: 128
  lora:
    r: 2
evaluation:
  k: 2
store: store
"""


def write_small_model(folder: Path) -> None:
    """Write an untrained Llama with one head of 32 dims, in bfloat16, and the world's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tasks.examples.world import train_tokenizer

    tokenizer = train_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=256,
        initializer_range=0.06,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_store(folder: Path) -> None:
    """Write the world and run the chain on it."""
    from tasks.examples.world import write_world

    write_world(folder / "world", seed=0, scale=0.05)
    shutil.rmtree(folder / "world" / "base_model")
    write_small_model(folder / "world" / "base_model")
    (folder / "config.yaml").write_text(CONFIG)
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "RSDPO_CACHE": f"{scratch}/cache",
            "PREFECT_HOME": f"{scratch}/prefect",
            "HF_HUB_OFFLINE": "1",
            "DO_NOT_TRACK": "1",
        }
        command = [sys.executable, "-m", "flows.rs_dpo", "config.yaml"]
        subprocess.run(command, cwd=folder, env=environment, check=True)
    shutil.rmtree(folder / "store" / "runs")
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def check_anonymous(folder: Path) -> None:
    """Refuse files that tell of this machine."""
    tells = {str(ROOT), str(Path.home()), tempfile.gettempdir(), socket.gethostname(), str(folder), sys.prefix}
    for path in folder.rglob("*"):
        binary = path.suffix in (".parquet", ".safetensors")  # where a short name stands by chance
        words = [tell for tell in tells if len(tell) > 6 or not binary]
        found = [tell for tell in words if path.is_file() and tell.encode() in path.read_bytes()]
        if found:
            raise SystemExit(f"{path} holds {found[0]!r}")


def main() -> None:
    """Write the store of the version in pyproject.toml, in place of one that is there."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / version
        made.mkdir()
        write_store(made)
        check_anonymous(made)
        shutil.rmtree(STORES / version, ignore_errors=True)
        shutil.copytree(made, STORES / version)


if __name__ == "__main__":
    main()
