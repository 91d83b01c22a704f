"""What the three training stages share: a job on disk, run here or in a child, resumed from its last checkpoint.

A job is plain data, so that it runs the same way in this process (CPU), in a child whose GPU memory is gone when it
ends, or under `torchrun` on several devices. SIGTERM, wherever it arrives, ends it with a checkpoint.
"""

import contextlib
import ctypes
import functools
import glob
import importlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from tasks.adapters import ADAPTER, adapter_files
from tasks.artifacts import Artifact, DamagedArtifactError, Provenance, files_digest
from tasks.copies import fetch
from tasks.drafts import Draft
from tasks.errors import ConfigurationError
from tasks.models import model_folder, trained_files, trusts_remote_code
from tasks.parquet import table_bytes
from tasks.progress import log
from tasks.schemas import SCHEMAS
from tasks.scratch import cache_folder, scratch_folder
from tasks.storage import Store
from tasks.training_config import Training
from tasks.updates import report_update, warn_of_loss

EXAMPLES, CHECKPOINT, OUTPUT = "examples.parquet", "checkpoint", "model"
UPDATE = "update.json"
REFUSED = "refused.txt"
"""Holds the message of a child that found something which a person gave wrong."""
SAVE_SECONDS = 120
"""How long a child may take, once told to stop, to end its step and save."""
_LIBC = ctypes.CDLL(None)  # opened here: between fork and exec, little is safe
_PR_SET_PDEATHSIG = 1


class Job(BaseModel):
    """One training run: everything that its function needs, wherever it runs."""

    fit: str
    """`module:function`, called with the job."""
    folder: Path
    """Working folder: holds the examples, receives the model and its metrics, if it trains one."""
    model: Path
    """Folder of the model to start from."""
    store: str
    """Store that the checkpoints, or parts of a table, go to."""
    checkpoints: str = ""
    """Folder of the checkpoints in the store."""
    table: Provenance | None = None
    """Growing table that a job fills which trains nothing."""
    config: dict[str, Any]
    """The stage's section of the configuration."""
    trust_remote_code: bool = False

    def examples(self) -> Any:
        """Return the tokenized examples as a memory-mapped `datasets.Dataset`."""
        from datasets import Dataset

        path = glob.escape(str(self.folder / EXAMPLES))  # else brackets in the path would be a pattern
        return Dataset.from_parquet(path, cache_dir=str(self.folder / "cache"))


@contextlib.contextmanager
def trained(out: Draft, fit: str, start: Artifact, config: Training, examples: Iterable[pa.Table]) -> Iterator[Path]:
    """Train a model, from its last checkpoint where there is one, and give the working folder that holds it.

    Args:
        out: The stage's output; its key names the checkpoints, which are deleted once the model is committed.
        fit: `module:function` that trains, given a `Job`.
        start: Model to start from.
        config: The stage's section.
        examples: Tokenized examples, some at a time.
    """
    checkpoints = f"checkpoints/{out.folder}"
    if config.lora is not None:
        warn_of_loss(start, config.dtype, f"{out.provenance.stage}: dtype")
    with scratch_folder(out.provenance.key[:16]) as folder:
        write_tables(folder / EXAMPLES, examples)
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
    discard(out.store, checkpoints)


def write_tables(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write tables of one schema, at least one, into one Parquet file, a table in memory at a time."""
    tables = iter(tables)
    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)


def commit_model(
    out: Draft, start: Artifact, folder: Path, stats: dict[str, Any], keeps: dict[str, str] | None = None
) -> Artifact:
    """Commit the model in a working folder, and name the parts of tables that served to train it.

    The digest is the model's own: the log, and the adapter that is merged into the model, lie beside it.
    """
    files = trained_files(folder / OUTPUT, trusts_remote_code(start))
    digest = files_digest(files)
    files["training_log.parquet"] = table_bytes(_log_table(folder), "training_log")
    files |= adapter_files(folder / ADAPTER, start)
    update = json.loads((folder / UPDATE).read_text())
    report_update(update)
    stats = {**stats, "update": update, "trust_remote_code": trusts_remote_code(start)}
    return out.commit("model", files, digest, rows=stats["examples"], stats=stats, keeps=keeps or {})


def _log_table(folder: Path) -> pa.Table:
    rows = [
        {"step": entry["step"], "metric": name, "value": float(value)}
        for entry in json.loads((folder / "log.json").read_text())
        for name, value in entry.items()
        if name not in ("step", "epoch") and isinstance(value, int | float)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["training_log"])


def run_job(job: Job) -> None:
    """Run a job here where it needs no GPU and one device, else in a child that dies with this process.

    What SIGTERM raises here goes on once the child, told of it, has saved a checkpoint.

    Raises:
        ConfigurationError: The child found something that a person gave wrong.
        RuntimeError: The child failed otherwise; its output says why.
    """
    import torch

    devices = job.config["devices"]
    if devices == 1 and not torch.cuda.is_available():
        _call(job)
        return
    path = job.folder / "job.json"
    path.write_text(job.model_dump_json())
    # Not `accelerate launch`: with --cpu it starts one process, whatever number it is given.
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    launch = [*torchrun, f"--shutdown-timeout={SAVE_SECONDS}"] if devices > 1 else []
    command = [sys.executable, *launch, "-m", "tasks.training", str(path)]
    child = subprocess.Popen(command, preexec_fn=functools.partial(die_with_parent, os.getpid()))
    try:
        code = child.wait()
    except KeyboardInterrupt:
        child.kill()
        raise
    finally:
        _let_save(child)
    if code and (refused := job.folder / REFUSED).exists():
        raise ConfigurationError(refused.read_text())
    if code:
        raise RuntimeError(f"{job.fit} failed in its child process with exit code {code}; its output is above")


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process when the thread that started it ends, so that no orphan keeps the GPU.

    Linux only. The thread must outlive the process that it starts: here it waits for it.

    Args:
        parent: Process id of the parent, taken before this process was started: it may be gone by now.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def on_sigterm(handler: Callable[..., None] | signal.Handlers) -> Iterator[None]:
    """Handle SIGTERM in another way for a while; only the main thread is ever asked to."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def checkpoint_steps(store: Store, checkpoints: str) -> list[int]:
    """Return the steps that have a folder in the store, complete or not, latest first."""
    numbers = [name.removeprefix("step-") for name in store.list(checkpoints)]
    return sorted((int(number) for number in numbers if number.isdigit()), reverse=True)


def discard(store: Store, folder: str) -> None:
    """Delete checkpoints; what another run of the same training writes or deletes just then is left to it."""
    with contextlib.suppress(OSError):
        store.delete(folder)


def _let_save(child: "subprocess.Popen[bytes]") -> None:
    """Tell a child that still runs to stop, and wait until it has saved; a second SIGTERM does not cut that short."""
    if child.poll() is not None:
        return
    with on_sigterm(signal.SIG_IGN):
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(SAVE_SECONDS)
        child.kill()


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


def _call(job: Job) -> None:
    module, _, name = job.fit.partition(":")
    getattr(importlib.import_module(module), name)(job)


if __name__ == "__main__":
    die_with_parent()  # of several processes, each: the kernel does not pass the wish on
    if os.getppid() == 1:
        raise SystemExit("the process that started this one is gone")
    job = Job.model_validate_json(Path(sys.argv[1]).read_text())
    try:
        _call(job)
    except ConfigurationError as error:
        (job.folder / REFUSED).write_text(str(error))
        raise SystemExit(2) from None
