"""Kill everything at random moments of every GPU stage, and compare what comes out with an undisturbed run.

Meanwhile the small parts of the store's tables are merged, over and over.

SIGKILL goes to the computing process, the GPU worker, the process of the pipeline, Prefect's server and the object
store, 20 times in all. supervisord restarts what a site's supervisor would, and a pipeline that ended is started again,
as its schedule would. After each kill the slots of the GPU limit must return to zero. At last a pipeline is cancelled,
as from the UI, and timed until nothing of it computes.

    python benchmarks/faults.py [--kills 20] [--seed 0] [--json]      (needs PostgreSQL; takes about half an hour)
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any, NamedTuple

import psutil
from _pipeline import Pipeline, processes_of
from _stack import Slots, pid_of, stack, wait_for
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from infra.stack import Stack
from tasks.store.artifacts import DamagedArtifactError
from tasks.store.compaction import compact_store
from tasks.store.filesystem import store_errors
from tasks.store.folders import Store
from tasks.store.manifests import read_manifest
from tasks.store.runs import read_runs
from tasks.store.slices import read_slices

STAGES = (
    "train_sft",
    "sample_completions",
    "train_reward_model",
    "score_completions",
    "train_dpo",
    "evaluate_policy",
)
"""The GPU stages, in the order in which the flow computes them."""
TARGETS = ("process", "worker", "pipeline", "server", "store")
LONGEST_WAIT = 12.0
"""Seconds from a stage's start within which it is struck, half for the last: no later stage makes up for it."""


class Kill(NamedTuple):
    """One SIGKILL."""

    stage: str
    target: str
    after: float
    """Seconds since the stage was seen to compute."""
    until: float
    """Seconds until it computed again."""
    rewritten: int
    """Artifacts and parts that had been committed and were written again."""


def strike(found: Stack, target: str, pipeline: Pipeline, run: FlowRun) -> None:
    """Send SIGKILL."""
    if target in ("process", "pipeline"):
        for process in processes_of({str(run.id if target == "process" else pipeline.run.id)}):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    elif target == "worker":
        os.kill(pid_of(found, "gpu-worker:gpu-worker-0"), signal.SIGKILL)
    else:
        os.killpg(pid_of(found, {"server": "server", "store": "s3"}[target]), signal.SIGKILL)


def committed(uri: str) -> dict[str, str]:
    """Return the checksum of every manifest that no one may make anew, by folder. It holds the time of its making."""
    store = Store(uri)
    folders = [f"{stage}/{key}" for stage in (*STAGES, "build_pairs") for key in store.list(stage)]
    tables = [f"tables/{kind}/{key}" for kind in store.list("tables") for key in store.list(f"tables/{kind}")]
    folders += [f"{table}/{part}" for table in tables for part in store.list(table)]
    return {folder: read_manifest(f"{uri}/{folder}").checksum for folder in folders if store.find(folder) is not None}


def result(uri: str) -> dict[str, Any]:
    """Return digests of what a pipeline returned, and its completions' ids."""
    store = Store(uri)
    record = next(run for run in reversed(read_runs(store)) if run.status == "finished")
    found = {name: store.find(folder) for name, folder in record.artifacts.items()}
    completions = [slice_.read() for slice_ in read_slices(store, found["completions"])]
    ids = [(row["prompt_id"], row["completion_id"]) for table in completions for row in table.to_pylist()]
    expected = read_manifest(found["prompts"].uri).rows * 8
    digests = {name: artifact.digest for name, artifact in found.items()}
    return {"digests": digests, "completions": len(ids), "different": len(set(ids)), "expected": expected}


def disturb(found: Stack, pipeline: Pipeline, kills: int, rng: random.Random) -> list[Kill]:
    """Kill so often, over all stages, print each kill, and wait after each stage until all its slots are returned."""
    slots = Slots()
    targets = [TARGETS[i % len(TARGETS)] for i in range(kills)]
    rng.shuffle(targets)
    done: list[Kill] = []
    for number, stage in enumerate(STAGES, 1):
        longest = LONGEST_WAIT / (2 if stage == STAGES[-1] else 1)
        while len(done) < kills * number // len(STAGES):
            kill = strike_once(found, pipeline, stage, targets[len(done)], rng.uniform(0, longest))
            if kill is None:
                break  # The stage was quicker.
            done.append(kill)
            print(f"{len(done):3} {stage:20} {kill.target:9} {kill.after:7.1f} {kill.until:7.1f} {kill.rewritten:9}")
            sys.stdout.flush()
        struck = time.monotonic()
        wait_for(f"the end of {stage}", lambda stage=stage: pipeline.look(stage) == "done", seconds=3600)
        # A dead run's lease lasts for a minute; the next stage takes slots some seconds later.
        wait_for(f"return of the slots after {stage}", lambda struck=struck: slots.free_at > struck, seconds=120)
    return done


def strike_once(found: Stack, pipeline: Pipeline, stage: str, target: str, after: float) -> Kill | None:
    """Kill while a stage computes, and wait until it computes again; None where it was done before."""
    wait_for(stage, lambda: pipeline.look(stage))
    time.sleep(after)
    run = wait_for(stage, lambda: pipeline.look(stage))
    if run == "done":
        return None
    before = committed(pipeline.store)
    strike(found, target, pipeline, run)
    began = time.monotonic()
    time.sleep(1)
    wait_for(f"{stage} going on", lambda: pipeline.look(stage))
    until = time.monotonic() - began
    now = committed(pipeline.store)
    return Kill(stage, target, after, until, sum(now.get(folder) != made for folder, made in before.items()))


def cancel(pipeline: Pipeline) -> float:
    """Cancel a pipeline while a worker samples for it; return the seconds until nothing computes."""
    wait_for("sampling", lambda: pipeline.look("sample_completions"))
    with get_client(sync_client=True) as client:
        tags = FlowRunFilter(tags=FlowRunFilterTags(all_=[f"parent:{pipeline.run.id}"]))
        ids = {str(run.id) for run in client.read_flow_runs(flow_run_filter=tags)} | {str(pipeline.run.id)}
        client.set_flow_run_state(pipeline.run.id, Cancelling())
    began = time.monotonic()
    wait_for("the end of all processes", lambda: not processes_of(ids), seconds=120)
    return time.monotonic() - began


@contextlib.contextmanager
def compacting(uri: str) -> Iterator[Callable[[], int]]:
    """Merge the small parts of a store's tables again and again meanwhile; give the number of parts merged so far."""
    merged, over = [], Event()

    def merge() -> None:
        while not over.wait(1.0):
            try:
                merged.extend(part for _, parts in compact_store(Store(uri)) for part in parts)
            except store_errors(DamagedArtifactError):  # the store is killed, too
                continue

    thread = Thread(target=merge)
    thread.start()
    try:
        yield lambda: len(merged)
    finally:
        over.set()
        thread.join()


def main() -> None:
    """Run it all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with stack() as found:
        calm = Pipeline("s3://rs-dpo/calm")
        wait_for("the undisturbed run", calm.is_done, seconds=3600)
        print(f"{'':3} {'stage':20} {'killed':9} {'after s':>7} {'until s':>7} {'rewritten':>9}", flush=True)
        stormy = Pipeline("s3://rs-dpo/stormy")
        with compacting(stormy.store) as merged:
            kills = disturb(found, stormy, options.kills, random.Random(options.seed))
            wait_for("the end", lambda: stormy.look("evaluate_policy") == "done" and stormy.is_done(), seconds=3600)
        one, other = result(calm.store), result(stormy.store)
        cancelled = cancel(Pipeline("s3://rs-dpo/cancelled"))
    differ = [name for name in one["digests"] if one["digests"][name] != other["digests"][name]]
    counts = {
        "kills": len(kills),
        "merged_parts": merged(),
        "pipeline_starts": stormy.starts,
        "rewritten": sum(kill.rewritten for kill in kills),
        "artifacts_that_differ": len(differ),
        "completions_lost": other["expected"] - other["different"],
        "completions_doubled": other["completions"] - other["different"],
        "seconds_to_cancel": round(cancelled, 1),
    }
    for name, value in counts.items():
        print(f"{name.replace('_', ' '):24} {value}")
    if options.json:
        print(json.dumps(counts))
    told = ("kills", "merged_parts", "pipeline_starts", "seconds_to_cancel")
    wrong = [name for name in counts if name not in told and counts[name]]
    sys.exit(f"wrong: {', '.join([*wrong, *differ])}" if wrong else 0)


if __name__ == "__main__":
    main()
