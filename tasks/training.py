"""What the three training stages share: a job on disk, run here or in a child, resumed from its last checkpoint.

A job is plain data, so that it runs the same way in this process (CPU), in a child whose GPU memory is gone when it
ends, or under `accelerate launch` on several devices.
"""

import contextlib
import ctypes
import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel

from tasks.artifacts import Artifact, files_digest
from tasks.config import Training
from tasks.copies import fetch
from tasks.models import model_folder, trained_files, trusts_remote_code
from tasks.parquet import table_bytes
from tasks.schemas import SCHEMAS
from tasks.scratch import scratch_folder
from tasks.stage import Draft, log
from tasks.storage import Store

EXAMPLES, CHECKPOINT, OUTPUT = "examples.parquet", "checkpoint", "model"


class Job(BaseModel):
    """One training run: everything that its function needs, wherever it runs."""

    fit: str
    """`module:function`, called with the job."""
    folder: Path
    """Working folder: holds the examples, receives the model and its metrics."""
    model: Path
    """Folder of the model to start from."""
    store: str
    """Store that the checkpoints go to."""
    checkpoints: str
    """Folder of the checkpoints in the store."""
    config: dict[str, Any]
    """The stage's section of the configuration."""
    trust_remote_code: bool = False

    def examples(self) -> Any:
        """Return the tokenized examples as a memory-mapped `datasets.Dataset`."""
        from datasets import Dataset

        return Dataset.from_parquet(str(self.folder / EXAMPLES), cache_dir=str(self.folder / "cache"))


@contextlib.contextmanager
def trained(out: Draft, fit: str, start: Artifact, config: Training, examples: pa.Table) -> Iterator[Path]:
    """Train a model, from its last checkpoint where there is one, and give the working folder that holds it.

    Args:
        out: The stage's output; its key names the checkpoints, which are deleted once the model is committed.
        fit: `module:function` that trains, given a `Job`.
        start: Model to start from.
        config: The stage's section.
        examples: Tokenized examples.
    """
    checkpoints = f"checkpoints/{out.folder}"
    with scratch_folder(out.provenance.key[:16]) as folder:
        pq.write_table(examples, folder / EXAMPLES)
        job = Job(
            fit=fit,
            folder=folder,
            model=model_folder(start),
            store=out.store.uri,
            checkpoints=checkpoints,
            config=config.model_dump(mode="json"),
            trust_remote_code=trusts_remote_code(start),
        )
        _fetch_checkpoint(out.store, job)
        run_job(job)
        yield folder
    out.store.delete(checkpoints)


def commit_model(out: Draft, start: Artifact, folder: Path, stats: dict[str, Any]) -> Artifact:
    """Commit the model in a working folder, with the log of its training as a table."""
    files = trained_files(folder / OUTPUT, trusts_remote_code(start))
    rows = [
        {"step": entry["step"], "metric": name, "value": float(value)}
        for entry in json.loads((folder / "log.json").read_text())
        for name, value in entry.items()
        if name not in ("step", "epoch") and isinstance(value, int | float)
    ]
    log_table = pa.Table.from_pylist(rows, schema=SCHEMAS["training_log"])
    digest = files_digest(files)
    files["training_log.parquet"] = table_bytes(log_table, "training_log")
    stats = {**stats, "trust_remote_code": trusts_remote_code(start)}
    return out.commit("model", files, digest, rows=stats["examples"], stats=stats)


def run_job(job: Job) -> None:
    """Run a job here where it needs no GPU and one device, else in a child that dies with this process.

    Raises:
        RuntimeError: The child failed; its output says why.
    """
    import torch

    devices = job.config["devices"]
    if devices == 1 and not torch.cuda.is_available():
        _call(job)
        return
    path = job.folder / "job.json"
    path.write_text(job.model_dump_json())
    launch = [
        "-m",
        "accelerate.commands.launch",
        f"--num_processes={devices}",
        "--num_machines=1",
        "--mixed_precision=no",
    ]
    launch += ["--dynamo_backend=no", *([] if torch.cuda.is_available() else ["--cpu"])]
    command = [sys.executable, *(launch if devices > 1 else []), "-m", "tasks.training", str(path)]
    child = subprocess.Popen(command, preexec_fn=die_with_parent)
    try:
        code = child.wait()
    finally:
        child.kill()
    if code:
        raise RuntimeError(f"{job.fit} failed in its child process with exit code {code}; its output is above")


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that no orphan keeps the GPU (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def checkpoint_steps(store: Store, checkpoints: str) -> list[int]:
    """Return the steps that have a complete checkpoint, latest first."""
    steps = sorted((int(name.removeprefix("step-")) for name in store.list(checkpoints)), reverse=True)
    return [step for step in steps if store.find(f"{checkpoints}/step-{step}") is not None]


def keep_short(table: pa.Table, sequences: list[list[str]], max_length: int) -> tuple[pa.Table, int]:
    """Drop examples with a sequence longer than `max_length` tokens; return the rest and how many went.

    Args:
        table: Tokenized examples.
        sequences: The columns that make up each sequence, e.g. prompt and completion.
        max_length: Longest sequence to keep.

    Raises:
        ValueError: None is left.
    """
    fits = are_short(table, sequences, max_length)
    if not fits.any():
        raise ValueError(f"all {table.num_rows} examples are longer than max_length = {max_length} tokens: raise it")
    return table.filter(pa.array(fits)), int((~fits).sum())


def are_short(table: pa.Table, sequences: list[list[str]], max_length: int) -> np.ndarray:
    """Return, for each example, whether all its sequences have at most `max_length` tokens."""
    lengths = [sum(pc.list_value_length(table[column]).to_numpy() for column in columns) for columns in sequences]
    fits: np.ndarray = np.all(np.stack(lengths) <= max_length, axis=0)
    return fits


def _fetch_checkpoint(store: Store, job: Job) -> None:
    """Lay the last complete checkpoint into the working folder."""
    for step in checkpoint_steps(store, job.checkpoints)[:1]:
        artifact = store.find(f"{job.checkpoints}/step-{step}")
        assert artifact is not None
        (job.folder / CHECKPOINT).symlink_to(fetch(artifact))
        log(f"resuming after step {step}")


def _call(job: Job) -> None:
    module, _, name = job.fit.partition(":")
    getattr(importlib.import_module(module), name)(job)


if __name__ == "__main__":
    _call(Job.model_validate_json(Path(sys.argv[1]).read_text()))
