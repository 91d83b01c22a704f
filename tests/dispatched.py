"""A stage that a deployment computes, for tests: it bears the name of a real one, so that `compute` can place it."""

import os
import signal
import time
from pathlib import Path

from prefect import flow

from tasks.config.sections import Section
from tasks.pipeline.site import Site
from tasks.pipeline.stage import stage
from tasks.store.artifacts import Artifact, sha256_of
from tasks.store.drafts import Draft
from tasks.store.folders import Store


class Behaviour(Section):
    """What the stage does before it commits."""

    fails: str = ""
    """Message of a ValueError."""
    dies_once: str = ""
    """A file that it writes before it kills itself; where the file is there already it lives."""
    sleeps: float = 0
    """Seconds."""


@stage(version=1, retries=2)
def train_sft(out: Draft, source: Artifact, behaviour: Behaviour) -> Artifact:
    """Write which process computed it, and what GPUs that saw."""
    if behaviour.fails:
        raise ValueError(behaviour.fails)
    if behaviour.dies_once and not Path(behaviour.dies_once).exists():
        Path(behaviour.dies_once).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(behaviour.sleeps)
    pid, gpus = (text.encode() for text in (str(os.getpid()), repr(os.environ.get("CUDA_VISIBLE_DEVICES"))))
    return out.commit("number", {"pid.txt": pid, "gpus.txt": gpus}, sha256_of(pid), rows=source.rows)


@flow(name="train-sft")
def train_sft_on_worker(store: str, source: Artifact, behaviour: Behaviour) -> None:
    """Compute the stage in the process of a worker."""
    train_sft(Site(Store(store)), source, behaviour)
