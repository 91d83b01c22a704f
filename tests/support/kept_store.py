"""A copy of the store that a release has left, with the record of the run that made it and a comparison of today."""

import shutil
from pathlib import Path
from typing import Any

from runs import ROOT

from tasks.store.artifacts import Provenance, sha256_of
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.runs import Run, RunRecord

STAGES = {
    "prompts": "load_prompts",
    "policy": "train_sft",
    "completions": "sample_completions",
    "reward_model": "train_reward_model",
    "rewards": "score_completions",
    "pairs": "build_pairs",
    "aligned": "train_dpo",
}
"""Artifact of the run -> its stage."""
OWN: dict[str, Any] = {"completions": 8, "mean_tokens": 7.5, "distinct_2": 0.5, "truncated": 0, "truncation_rate": 0.0}
OWN |= {"repetition": 0.0, "reference_nll": 1.0}
OWN |= {part: {"reward_model": {"mean": 0.25, "std": 0.5}} for part in ("rewards", "finished")}
WINS = {"reward_model": {"win_rate": 0.75, "low": 0.625, "high": 0.875, "ties": 0.125, "prompts": 4}}
KL = {f"kl_{part}{bound}": 0.5 for part in ("sequence", "token") for bound in ("", "_low", "_high")}
COMPARED = {"win_rates": WINS, "finished_win_rates": WINS, "divergence": {**KL, "completions": 8, "truncated": 0}}
FIGURES = {"prompts": 4, "reference": "sft", "policies": {"sft": OWN, "aligned": {**OWN, **COMPARED}}}


def kept_store(folder: Path) -> Store:
    """Copy the store, whose aligned model was trained with LoRA."""
    shutil.copytree(ROOT / "tests/stores/0.2.0/store", folder)
    return Store(str(folder))


def kept_run(store: Store, status: str = "finished", **facts: Any) -> Run:
    """Write the record of a run that made all that is in the store; `facts` are fields of it."""
    folders = {name: f"{stage}/{store.list(stage)[0]}" for name, stage in STAGES.items()}
    evaluation = Draft(store, Provenance(stage="evaluate_policy", version=4, key="e" * 64))
    compared = evaluation.commit("evaluation", {"evaluation.json": b"{}"}, sha256_of(b"{}"), stats=FIGURES)
    folders["evaluation"] = store.folder_of(compared)
    record = RunRecord.begin(store)
    models = tuple(f"store_model/{key}" for key in store.list("store_model"))
    record._write(**{"status": status, "stages": (*models, *folders.values()), "artifacts": folders, **facts})
    return record.run
