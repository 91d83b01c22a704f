"""From a training stage to its trained model: the job, resumed from its last checkpoint, and the commit of the model.

This is the stage's side of a training; `trainer.py` is the side of the process that trains.
"""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.config.training import Training
from tasks.models.adapters import ADAPTER, adapter_files
from tasks.models.loading import model_folder, trained_files, trusts_remote_code
from tasks.models.updates import report_update, warn_of_loss
from tasks.pipeline.jobs import EXAMPLES, Job, run_job
from tasks.pipeline.progress import log
from tasks.store.artifacts import Artifact, Content, DamagedArtifactError, files_digest
from tasks.store.copies import fetch
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS
from tasks.store.scratch import cache_folder, scratch_folder
from tasks.training.trackers import check_trackers, event_files

LOG = "training_log.parquet"
"""Of a trained model: what was logged along its training."""
CHECKPOINT, TRAINER, OUTPUT, UPDATE = "checkpoint", "trainer", "model", "update.json"
"""Names in a job's folder: the checkpoint to resume from, the trainer's own folder, the model, and what rounding leaves
of the training."""


@contextlib.contextmanager
def trained(out: Draft, fit: str, start: Artifact, config: Training, examples: Iterable[pa.Table]) -> Iterator[Path]:
    """Train a model, from its last checkpoint where there is one, and give the working folder that holds it.

    Args:
        out: The stage's output; its key names the checkpoints, which are deleted once the model is committed.
        fit: `module:function` that trains, given a `Job`.
        start: Model to start from.
        config: The stage's section.
        examples: Tokenized examples, some at a time.

    Raises:
        ConfigurationError: A tracker that the configuration names is not installed here.
    """
    check_trackers(config)
    checkpoints = f"checkpoints/{out.folder}"
    if config.lora is not None:
        warn_of_loss(start, config.dtype, f"{out.provenance.stage}: dtype")
    with scratch_folder(out.provenance.key[:16]) as folder:
        write_tables(folder / EXAMPLES, examples)
        job = Job(
            fit=fit,
            folder=folder,
            model=model_folder(start),
            model_digest=start.digest,
            store=out.store.uri,
            checkpoints=checkpoints,
            config=config.model_dump(mode="json"),
            trust_remote_code=trusts_remote_code(start),
        )
        _fetch_checkpoint(out.store, job)
        run_job(job)
        yield folder
    discard(out.store, checkpoints)


def write_tables(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write tables of one schema, at least one, into one Parquet file, a table in memory at a time."""
    tables = iter(tables)
    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)


def commit_model(
    out: Draft,
    start: Artifact,
    folder: Path,
    stats: dict[str, Any],
    beside: Mapping[str, Content] | None = None,
    **folders: dict[str, str],
) -> Artifact:
    """Commit the model in a working folder.

    The digest covers the model's files alone, not what lies beside them: the log, TensorBoard's files, and the adapter,
    which is merged into the model.

    Args:
        out: The stage's output.
        start: The model that the training began with.
        folder: The working folder.
        stats: What to record; `examples` among them.
        beside: Name -> content of further files.
        **folders: The manifest's `keeps` (what served to train the model) and `parts` (its snapshots).
    """
    files = trained_files(folder / OUTPUT, trusts_remote_code(start))
    digest = files_digest(files)
    files[LOG] = table_bytes(_log_table(folder), "training_log")
    files |= adapter_files(folder / ADAPTER, start.digest) | event_files(folder / CHECKPOINT, folder / TRAINER)
    files |= dict(beside or {})
    update = json.loads((folder / UPDATE).read_text())
    report_update(update)
    stats = {**stats, "update": update, "trust_remote_code": trusts_remote_code(start)}
    return out.commit("model", files, digest, rows=stats["examples"], stats=stats, **folders)


def last_metrics(folder: Path) -> dict[str, float]:
    """Return the mean of each metric over the last tenth of what a training has logged, one entry at least."""
    values: dict[str, list[float]] = {}
    for row in _log_table(folder).to_pylist():
        values.setdefault(row["metric"], []).append(row["value"])
    return {name: float(np.mean(own[-max(1, len(own) // 10) :])) for name, own in values.items()}


def _log_table(folder: Path) -> pa.Table:
    rows = [
        {"step": entry["step"], "metric": name, "value": float(value)}
        for entry in json.loads((folder / "log.json").read_text())
        for name, value in entry.items()
        if name not in ("step", "epoch") and isinstance(value, int | float)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["training_log"])


def checkpoint_steps(store: Store, checkpoints: str) -> list[int]:
    """Return the steps that have a folder in the store, complete or not, latest first."""
    numbers = [name.removeprefix("step-") for name in store.list(checkpoints)]
    return sorted((int(number) for number in numbers if number.isdigit()), reverse=True)


def discard(store: Store, folder: str) -> None:
    """Delete checkpoints; errors are passed over, since another run of the same training may write or delete there."""
    with contextlib.suppress(OSError):
        store.delete(folder)


def _fetch_checkpoint(store: Store, job: Job) -> None:
    """Lay the last complete checkpoint into the working folder, where no other run can delete it."""
    folder = job.folder / CHECKPOINT
    for step in checkpoint_steps(store, job.checkpoints):
        try:
            if (artifact := store.find(f"{job.checkpoints}/step-{step}")) is None:
                continue
            fetched = fetch(artifact)
            shutil.copytree(fetched, folder, copy_function=_link)
        except (DamagedArtifactError, FileNotFoundError, shutil.Error):  # deleted meanwhile, by a run that is ahead
            shutil.rmtree(folder, ignore_errors=True)
            continue
        if fetched.is_relative_to(cache_folder()):
            shutil.rmtree(fetched, ignore_errors=True)  # weights and optimizer: too much to keep
        log(f"resuming after step {step}")
        return


def _link(source: str, target: str) -> None:
    """Link a file, or copy it where it cannot be linked."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
