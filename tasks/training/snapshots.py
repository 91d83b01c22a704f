"""Models that are kept along a training, so that it can be looked at as a curve.

Each is an artifact of its own under `dpo_snapshot/`, committed as soon as it is reached: a training that is killed and
goes on keeps those before. Imports torch and transformers within functions of the trainer's side only.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.config.rloo import RlooConfig
from tasks.config.training import DpoConfig
from tasks.models.adapters import ADAPTER, adapter_files
from tasks.models.loading import trained_files
from tasks.pipeline.dry_run import PENDING
from tasks.pipeline.jobs import Job
from tasks.pipeline.progress import warn
from tasks.store.artifacts import Artifact, Manifest, files_digest
from tasks.store.drafts import keyed
from tasks.store.folders import Store

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

STEPS = "snapshots.json"
"""In a job's folder: the steps at which models are kept."""
LAST = "last"
"""Name of the model at the end of a training, among those along it."""
STAGE = "dpo_snapshot"
"""RLOO's too: what is in stores keeps its name."""


def snapshot_steps(steps: int, number: int) -> list[int]:
    """Return the steps that cut a training into `number` + 1 parts of like length; fewer where it has fewer steps."""
    cuts = {round(steps * part / (number + 1)) for part in range(1, number + 1)}
    return sorted(cuts - {0, steps})


def snapshot_folder(training: str, step: int) -> str:
    """Return the folder of a snapshot in the store.

    Args:
        training: Key of the training stage.
        step: The optimizer step after which it was kept.
    """
    return f"{STAGE}/{keyed(STAGE, 1, {'step': step, 'training': training}, {}, {}).key}"


def keep_snapshots(trainer: "Trainer", job: Job, config: DpoConfig | RlooConfig) -> "TrainerCallback":
    """Return the callback of a training that keeps its snapshots, and write down at which steps."""
    from transformers import TrainerCallback

    steps = snapshot_steps(trainer.args.max_steps, config.snapshots)
    if trainer.is_world_process_zero():
        (job.folder / STEPS).write_text(json.dumps(steps))

    class KeepSnapshots(TrainerCallback):
        """Commits the model after some steps."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Commit the model as it is, from the first process; all take part where the weights are spread."""
            if state.global_step not in steps:
                return
            weights = trainer.accelerator.get_state_dict(trainer.model)
            if trainer.is_world_process_zero():
                commit_snapshot(trainer, weights, job, config, state.global_step)

    return KeepSnapshots()


def commit_snapshot(
    trainer: "Trainer", weights: dict[str, Any], job: Job, config: DpoConfig | RlooConfig, step: int
) -> None:
    """Commit the policy of a training as it is: its adapter, or all weights in `stored_dtype` or float32."""
    folder, training = job.folder / f"step-{step}", job.checkpoints.rpartition("/")[2]
    model = trainer.accelerator.unwrap_model(trainer.model)
    if config.lora is not None:
        model.save_pretrained(folder, state_dict=weights)
        kind, files = ADAPTER, adapter_files(folder, job.model_digest, within="")
    else:
        from tasks.training.saving import save_weights

        save_weights(model, weights, trainer.processing_class, folder, config.stored_dtype or "float32")
        kind, files = "model", trained_files(folder, job.trust_remote_code)
    name = snapshot_folder(training, step)
    provenance = keyed(STAGE, 1, {"step": step, "training": training}, {"policy": job.model_digest}, {})
    provenance = provenance.model_copy(update={"key": name.rpartition("/")[2]})
    stats = {"step": step, "trust_remote_code": job.trust_remote_code}
    manifest = Manifest(kind=kind, digest=files_digest(files), rows=step, stats=stats, provenance=provenance)
    Store(job.store).commit(name, files, manifest, replace=False)


def find_snapshots(store: Store, training: str, folder: Path) -> list[Artifact]:
    """Return the snapshots of a training that has ended, in order; one that was lost meanwhile is told, and left out.

    Args:
        store: Where they are.
        training: Key of the training stage.
        folder: The job's working folder.
    """
    steps = json.loads((folder / STEPS).read_text()) if (folder / STEPS).exists() else []
    found = {step: store.find(snapshot_folder(training, step)) for step in steps}
    if lost := [step for step, snapshot in found.items() if snapshot is None]:
        warn(
            f"the models kept after steps {lost} are gone from {store.uri}: the curve of this training is without them"
        )
    return [snapshot for snapshot in found.values() if snapshot is not None]


def snapshot_facts(snapshots: list[Artifact], store: Store) -> list[dict[str, Any]]:
    """Return what a training records of its snapshots: as references, but by folder, since stores are moved."""
    return [each.model_dump(mode="json") | {"uri": store.folder_of(each)} for each in snapshots]


def snapshots(aligned: Artifact, policy: Artifact, with_last: bool = False) -> dict[str, Artifact]:
    """Return the models that were kept along the training of an aligned policy, by name.

    Args:
        aligned: What the training gave.
        policy: What it began with, which adapters lie over.
        with_last: Whether what the training gave is to be among them, under the name `last`.
    """
    found, (store, *_) = {}, aligned.uri.rsplit("/", 2)
    for each in aligned.stats.get("snapshots", ()):
        artifact = Artifact.model_validate(each)
        if artifact.kind != PENDING:
            artifact = artifact.model_copy(update={"uri": f"{store}/{artifact.uri}"})
        if artifact.kind == ADAPTER:
            base = policy.model_dump(mode="json", include={"kind", "uri", "digest"})
            artifact = artifact.model_copy(update={"stats": {**artifact.stats, "base": base}})
        found[f"step-{artifact.stats['step']}"] = artifact
    return found | ({LAST: aligned} if with_last else {})
