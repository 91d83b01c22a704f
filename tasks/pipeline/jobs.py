"""Jobs: GPU work as plain data, run in this process or in a child that dies with it.

A job runs the same way in this process (CPU), in a child whose GPU memory is gone when it ends, or under `torchrun` on
several devices. SIGTERM, wherever it arrives, ends a training with a checkpoint.
"""

import contextlib
import ctypes
import functools
import glob
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasks.config.errors import ConfigurationError
from tasks.pipeline.progress import TELL, TELL_SECONDS, Position, Progress
from tasks.store.artifacts import Provenance
from tasks.store.cost import COST, gpu_used

EXAMPLES = "examples.parquet"
"""The tokenized examples, in a job's folder."""
PROGRESS = "progress.json"
"""How far a child is, in a job's folder."""
GPU = "gpu.json"
"""The GPU that a child computed on, in a job's folder."""
REFUSED = "refused.txt"
"""The message of a child that found something which a person gave wrong, in a job's folder."""
SAVE_SECONDS = 120
"""How long a child may take, once told to stop, to end its step and save."""
_LIBC = ctypes.CDLL(None)  # opened here: between fork and exec, little is safe
_PR_SET_PDEATHSIG = 1


class Job(BaseModel):
    """A training, or the computing of a table: everything that its function needs, wherever it runs."""

    fit: str
    """`module:function`, called with the job."""
    folder: Path
    """Working folder: holds the examples, receives the model and its metrics, if it trains one."""
    model: Path
    """Folder of the model to start from."""
    model_digest: str = ""
    """Digest of the model to start from."""
    store: str
    """Store that the checkpoints, or parts of a table, go to."""
    checkpoints: str = ""
    """Folder of the checkpoints in the store."""
    table: Provenance | None = None
    """Growing table that a job fills which trains no model."""
    config: dict[str, Any]
    """The stage's section of the configuration."""
    trust_remote_code: bool = False
    """Run code that comes with the model."""

    def examples(self) -> Any:
        """Return the tokenized examples as a memory-mapped `datasets.Dataset`."""
        from datasets import Dataset

        path = glob.escape(str(self.folder / EXAMPLES))  # else brackets in the path would be a pattern
        return Dataset.from_parquet(path, cache_dir=str(self.folder / "cache"))


def run_job(job: Job) -> None:
    """Run a job here where it needs no GPU and one device, else in a child that dies with this process.

    An exception here, such as SIGTERM raises, stops the child, and is raised further once the child has saved.

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
    command = [sys.executable, *launch, "-m", "tasks.pipeline.jobs", str(path)]
    for said in (PROGRESS, GPU):
        (job.folder / said).unlink(missing_ok=True)
    environment = os.environ | (first_gpu() if devices == 1 else {})
    child = subprocess.Popen(command, env=environment, preexec_fn=functools.partial(die_with_parent, os.getpid()))
    try:
        code = _wait(child, job.folder / PROGRESS)
    except KeyboardInterrupt:
        child.kill()
        raise
    finally:
        _let_save(child)
    if code and (refused := job.folder / REFUSED).exists():
        raise ConfigurationError(refused.read_text())
    if code:
        raise RuntimeError(f"{job.fit} failed in its child process with exit code {code}; its output is above")
    if (cost := COST.get()) is not None and (used := job.folder / GPU).exists():
        cost.note_child(json.loads(used.read_text()))


def first_gpu() -> dict[str, str]:
    """Return the environment in which a process sees the first GPU alone: on all of them the trainer would be several.

    A GPU that is named by something else than its number keeps that name.
    """
    return {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}


def die_with_parent(parent: int | None = None, by: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to kill this process when the thread that started it ends, so that no orphan keeps the GPU.

    Linux only. The thread must outlive the process that it starts: here it waits for it.

    Args:
        parent: Process id of the parent, taken before this process was started: it may be gone by now.
        by: The signal; SIGTERM for a program that has children of its own, which it ends then.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, by)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), by)


@contextlib.contextmanager
def on_sigterm(handler: Callable[..., None] | signal.Handlers) -> Iterator[None]:
    """Handle SIGTERM with another handler meanwhile; outside of the main thread, which signals go to, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_within(seconds: float, status: int) -> None:
    """Exit this process after some seconds, whatever it hangs in, unless it has ended by itself."""
    last = threading.Timer(seconds, os._exit, [status])
    last.daemon = True
    last.start()


def _wait(child: "subprocess.Popen[bytes]", told: Path) -> int:
    """Wait for the end of a child; show here, where a person and Prefect look, how far it says that it is."""
    progress: Progress | None = None
    while child.returncode is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(TELL_SECONDS)
        if not told.exists():
            continue
        position = Position(**json.loads(told.read_text()))
        if progress is not None and progress.what != position.what:
            progress.close()
            progress = None
        progress = progress or Progress(position.what, position.total, position.start)
        progress.move_to(position.done, position.note)
    if progress is not None and not child.returncode:
        progress.close()
    return int(child.returncode)


def _tell(told: Path, position: Position) -> None:
    """Write down how far this child is; of several processes, the first one's progress stands for all."""
    if os.environ.get("RANK", "0") == "0":
        written = told.with_suffix(".written")
        with contextlib.suppress(OSError):  # what is shown is not worth the work
            written.write_text(json.dumps(position._asdict()))
            written.replace(told)


def _let_save(child: "subprocess.Popen[bytes]") -> None:
    """Tell a child that still runs to stop, and wait until it has saved; a second SIGTERM does not cut that short."""
    if child.poll() is not None:
        return
    with on_sigterm(signal.SIG_IGN):
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(SAVE_SECONDS)
        child.kill()


def _call(job: Job) -> None:
    module, _, name = job.fit.partition(":")
    getattr(importlib.import_module(module), name)(job)


if __name__ == "__main__":
    die_with_parent()  # of several processes, each: the kernel does not pass the wish on
    if os.getppid() == 1:
        raise SystemExit("the process that started this one is gone")
    job = Job.model_validate_json(Path(sys.argv[1]).read_text())
    TELL.set(functools.partial(_tell, job.folder / PROGRESS))
    try:
        _call(job)
    except ConfigurationError as error:
        (job.folder / REFUSED).write_text(str(error))
        raise SystemExit(2) from None
    if os.environ.get("RANK", "0") == "0" and (used := gpu_used()):
        (job.folder / GPU).write_text(json.dumps(used))
