"""A stage that a deployment computes, for tests: it bears the name of a real one, so that `compute` can place it."""

import os
import signal
import time
from pathlib import Path

from prefect import flow

from flows.stages import as_flow
from tasks.config.sections import Section
from tasks.pipeline.options import Work
from tasks.pipeline.site import Site
from tasks.pipeline.stage import stage
from tasks.store.artifacts import Artifact, Provenance, sha256_of
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


def _numbers(store: Store, source: Artifact) -> list[int]:
    """Return the numbers below the source's rows that the table lacks."""
    there = {int(name) for name in store.list("tables/numbers/t")}
    first = source.stats.get("first", 0)
    return [number for number in range(first, first + source.rows) if number not in there]


def _split(store: Store, source: Artifact, shards: int) -> list[dict[str, Artifact]]:
    missing = _numbers(store, source)
    cuts = [missing[i * len(missing) // shards : (i + 1) * len(missing) // shards] for i in range(shards)]
    return [{"source": _numbers_from(source, own[0], len(own))} for own in cuts if own]


def _numbers_from(source: Artifact, first: int, rows: int) -> Artifact:
    change = {"digest": f"{first}x{rows}", "rows": rows, "stats": {"first": first}}
    return source.model_copy(update=change)


@stage(
    version=1,
    retries=2,
    work=lambda store, source: Work("numbers", lambda: len(_numbers(store, source))),
    split=_split,
)
def sample_completions(out: Draft, source: Artifact, behaviour: Behaviour) -> Artifact:
    """Add numbers to a table, each with the process that added it; fail at one of them."""
    for number in _numbers(out.store, source):
        if behaviour.fails == str(number):
            raise ValueError(f"{number} fails")
        draft = Draft(out.store, Provenance(stage="tables/numbers/t", version=1, key=str(number)))
        pid = str(os.getpid()).encode()
        draft.commit("number", {"pid.txt": pid}, sha256_of(pid), rows=1)
    return out.commit("number", {}, sha256_of(source.digest.encode()), rows=source.rows)


sample_on_worker = as_flow(sample_completions)
