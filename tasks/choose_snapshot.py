"""Choosing: reads the models along a training and how a held-out reward likes them, writes the one to go on with.

The held-out reward is none that pairs were selected by: from where it falls, the policy pleases the reward model and no
longer what that stands for (arXiv:2210.10760). The training itself is the same whatever is kept of it.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tasks.config.errors import ConfigurationError
from tasks.config.training import DpoConfig
from tasks.evaluation.along import best_place, complete, gains, in_order
from tasks.models.adapters import ADAPTER, adapter_files
from tasks.models.loading import model_folder, trained_files, trusts_remote_code
from tasks.pipeline.dry_run import pending
from tasks.pipeline.progress import log
from tasks.pipeline.stage import stage
from tasks.store.artifacts import Artifact, Content, files_digest
from tasks.store.copies import fetch
from tasks.store.drafts import Draft
from tasks.store.parquet import read_file
from tasks.training.snapshots import LAST, snapshots
from tasks.training.trained_model import LOG


def _preview(policy: Artifact, trained: Artifact) -> tuple[Artifact, dict[str, Any]]:
    return pending(0, "choose_snapshot", **policy.stats), {"models": len(trained.stats["snapshots"]) + 1}


@stage(version=1, preview=_preview, given=lambda trained, dpo: trained if dpo.keep == "last" else None)
def choose_snapshot(
    out: Draft, trained: Artifact, policy: Artifact, curve: Artifact, dpo: DpoConfig, held_out: tuple[str, ...]
) -> Artifact:
    """Keep the earliest model along a training that the held-out reward likes as well as any, within noise."""
    name, found = choose(curve, held_out)
    log(f"the model {_told(name)} is kept: {' and '.join(held_out)} likes none of {len(found)} more, within noise")
    is_last = name == LAST
    model = trained if is_last else snapshots(trained, policy)[name]
    files = trained_files(model_folder(model), trusts_remote_code(trained))
    digest = files_digest(files)
    adapter = model_folder(trained) / ADAPTER if is_last else _adapter(model)
    beside: dict[str, Content] = {LOG: model_folder(trained) / LOG, **adapter_files(adapter, policy.digest)}
    counted = {name: trained.stats[name] for name in ("examples", "completions", "trust_remote_code")}
    update = {"update": trained.stats["update"]} if is_last else {}
    stats = {**counted, **update, "kept": name, "held_out_gain": found}
    return out.commit("model", files | beside, digest, rows=trained.rows, stats=stats)


def choose(curve: Artifact, held_out: tuple[str, ...]) -> tuple[str, dict[str, float]]:
    """Return which model is kept, and the mean gain of each in the held-out reward.

    Args:
        curve: The evaluation of the models along a training, the last one among them.
        held_out: The held-out reward; of an ensemble its members, whose mean is the reward.

    Raises:
        ConfigurationError: Fewer than two held-out prompts have the reward for all models.
    """
    rows, names = read_file(curve, "samples.parquet", "evaluation"), in_order(curve.stats["policies"])
    each = [gains(rows, name, curve.stats["reference"]) for name in names]
    models = complete([np.mean([own[reward] for reward in held_out], axis=0) for own in each])
    if models.shape[1] < 2:
        raise ConfigurationError(
            f"dpo.keep = best compares models on the held-out prompts, and {models.shape[1]} of them have a reward by "
            f"{' and '.join(held_out)} for every model: hold out more prompts, or set keep to last"
        )
    return names[best_place(models).earliest], dict(zip(names, models.mean(axis=1).tolist(), strict=True))


def _adapter(snapshot: Artifact) -> Path:
    """Return the folder of a snapshot's adapter; one that does not exist where it is a whole model."""
    return fetch(snapshot) if snapshot.kind == ADAPTER else model_folder(snapshot) / ADAPTER


def _told(name: str) -> str:
    return "at the end of the training" if name == LAST else f"after step {name.removeprefix('step-')}"
