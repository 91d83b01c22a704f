"""What the tests on a GPU compute: the stages' inputs out of the world of facts, and models with random weights."""

import random
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pair_tables import commit, draft
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from tasks.data.records import prompt_id
from tasks.examples import world
from tasks.store.artifacts import Artifact, files_digest
from tasks.store.folders import Store

VOCABULARY = 8192


class Inputs(NamedTuple):
    """What the first stages read."""

    base_model: Artifact
    demonstrations: Artifact
    preferences: Artifact
    prompts: Artifact


def commit_inputs(store: Store, folder: Path, rng: random.Random) -> Inputs:
    """Commit the world's untrained model, 256 demonstrations, 64 preferences and 8 prompts."""
    world.write_base_model(folder, seed=0)
    files = {path.name: path for path in folder.iterdir()}
    base_model = draft(store, "base_model").commit("model", files, files_digest(files))
    told = [row["messages"] for row in world.demonstrations(256, rng)]
    demonstrations = [
        {"prompt_id": prompt_id(m[:-1]), "messages": m[:-1], "completion": m[-1]["content"]} for m in told[:256]
    ]
    compared = [asked(row) | {side: row[side] for side in ("chosen", "rejected")} for row in world.preferences(64, rng)]
    prompts = [asked(row) | {"source": "world"} for row in world.prompts(8, False, rng)]
    tables = {"demonstrations": demonstrations, "preferences": compared, "prompts": prompts}
    return Inputs(base_model, **{kind: commit(store, kind, rows) for kind, rows in tables.items()})


def asked(row: dict[str, str]) -> dict[str, Any]:
    """Return the prompt of a row."""
    messages = [{"role": "user", "content": row["prompt"]}]
    return {"prompt_id": prompt_id(messages), "messages": messages}


def random_llama(kind: Any = LlamaForCausalLM, layers: int = 8, **more: Any) -> PreTrainedModel:
    """Return a Llama of some 60 million random weights, float32, on the CPU."""
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_key_value_heads": 4}
    config = LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=layers, pad_token_id=0, **shape, **more)
    torch.manual_seed(0)
    model: PreTrainedModel = kind(config)
    return model.eval()


def random_texts(prompts: int, k: int, length: int) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Return prompts of about a length in tokens, k completions of each of about that, and their prompts' numbers."""
    rng = random.Random(0)

    def ids() -> list[int]:
        return [rng.randrange(1, VOCABULARY) for _ in range(rng.randint(length // 2, length))]

    return [ids() for _ in range(prompts)], [ids() for _ in range(prompts * k)], [i // k for i in range(prompts * k)]
