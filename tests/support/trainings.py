"""Small trainings of every stage, as the stages run them."""

import json
import os
import signal
import sys
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import TrainerCallback

from tasks.config.sections import ModelSource
from tasks.config.settings import RewardModelConfig, SftConfig
from tasks.config.training import DpoConfig, Lora, Training
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.parquet import read_table
from tasks.training.trained_model import commit_model, trained

STEPS, STOP = 10, 6  # of 8 steps an epoch; between two saves
SETTINGS: dict[str, Any] = {"max_steps": STEPS, "batch_size": 4, "save_steps": 4, "logging_steps": 1}
SETTINGS |= {"learning_rate": 1e-3, "scheduler": "constant", "warmup_ratio": 0.0}
STAGES: dict[str, Training] = {
    "sft": SftConfig(base_model=ModelSource(path="given"), tokens_per_batch=12, **SETTINGS),
    "reward_model": RewardModelConfig(tokens_per_batch=24, **SETTINGS),
    "dpo": DpoConfig(**SETTINGS, tokens_per_batch=30, lora=Lora(r=2)),  # two packs a step
}


def examples(stage: str) -> pa.Table:
    """Return 32 examples of random tokens; for DPO 16 prompts with two pairs each, of three completions."""
    random = np.random.default_rng(0)

    def tokens(*shape: int) -> list:
        return random.integers(10, 200, (*shape, 6)).tolist()

    if stage == "sft":
        return pa.table({"input_ids": tokens(32), "completion_mask": [[0, 0, 1, 1, 1, 1]] * 32})
    if stage == "reward_model":
        ids = {"prompt_id": [f"{i:02d}" for i in range(32)]}
        return pa.table(ids | {"chosen_ids": tokens(32), "rejected_ids": tokens(32)})
    columns = {"prompt_id": [f"{i:02d}" for i in range(16)], "prompt": tokens(16), "completions": tokens(16, 3)}
    columns["ref_logps"] = random.uniform(-30, -20, (16, 3)).tolist()
    return pa.table(columns | {"chosen": [[0, 1]] * 16, "rejected": [[1, 2]] * 16})


def uneven_examples() -> pa.Table:
    """Return the examples of DPO with one pair of every other prompt, and a completion that KTO takes for another's."""
    rows = examples("dpo").to_pylist()
    cut = [row | {side: row[side][: 1 + i % 2] for side in ("chosen", "rejected")} for i, row in enumerate(rows)]
    return pa.Table.from_pylist([row | {"unrelated": 2} for row in cut])


def train(stage: str, store: Store, start: Artifact, **changes: object) -> Artifact:
    """Train as the stage does; with other losses or weights on uneven examples."""
    draft, config = Draft(store, Provenance(stage=stage, version=1, key="k")), STAGES[stage].model_copy(update=changes)
    rows = uneven_examples() if changes.keys() & {"loss_type", "weight_pairs"} else examples(stage)
    with trained(draft, f"tasks.{stage}:fit", start, config, [rows]) as folder:
        return commit_model(draft, start, folder, {"examples": 32})


def losses(model: Artifact) -> list[tuple[int, float]]:
    log = read_table(Artifact(kind="training_log", uri=model.uri, digest=model.digest)).to_pylist()
    return [(row["step"], row["value"]) for row in log if row["metric"] == "loss"]


def steps_in(store: Store) -> list[str]:
    """Return the complete checkpoints of a store."""
    folders = [f"checkpoints/{stage}/k" for stage in STAGES]
    return [name for folder in folders for name in store.list(folder) if store.find(f"{folder}/{name}")]


class Preempt(TrainerCallback):
    """Sends SIGTERM to its own process amid an optimizer step, and again before the checkpoint is committed."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_pre_optimizer_step(self, args, state, control, **_) -> None:
        if state.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_save(self, args, state, control, **_) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class PreemptedError(BaseException):
    """What SIGTERM raises here, as Prefect's handler does within a flow run."""


def work(stage: str, store: str, start: str, changes: str) -> None:
    """Train in a process of its own once told to, and print the model; SIGTERM raises, as within a flow run."""
    from trl import SFTTrainer  # noqa: F401 - takes seconds, of which two processes would take different ones

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print("ready", flush=True)
    sys.stdin.readline()
    print(train(stage, Store(store), Artifact.model_validate_json(start), **json.loads(changes)).model_dump_json())
