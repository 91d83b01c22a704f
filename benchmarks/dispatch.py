"""What orchestration costs: seconds from asking a worker for a stage to its end, and seconds a task takes of Prefect.

The stage's output is in the store already, so nothing is computed: what is measured is the queue, the start of the
worker's process with its imports, the slot of the GPU, the look into the store, and the way back. The share of an hour
is that of a whole run: 13 tasks, of which 6 are dispatched.

    python benchmarks/dispatch.py [--rounds 10] [--json]      (needs PostgreSQL)
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import uuid

from _stack import stack
from prefect import flow

from infra.stack import ROOT
from tasks.config.compute import ComputeConfig
from tasks.config.settings import SftConfig
from tasks.pipeline.dispatch import check_ended_well, endings, start
from tasks.pipeline.site import Site
from tasks.sft import train_sft
from tasks.store.artifacts import Artifact, sha256_of
from tasks.store.folders import open_store

TASKS, DISPATCHED, HOUR = 13, 6, 3600.0
COMPUTE = ComputeConfig(train_sft="train-sft/gpu")


def committed(site: Site) -> tuple[Artifact, Artifact, SftConfig]:
    """Commit a stage's output and return the arguments that name it."""
    base, demonstrations = (
        Artifact(kind=kind, uri="s3://elsewhere", digest=sha256_of(uuid.uuid4().bytes))
        for kind in ("model", "demonstrations")
    )
    sft = SftConfig(base_model="elsewhere")
    train_sft.draft(site, base, demonstrations, sft).commit("model", {"weights": b"none"}, sha256_of(b"none"))
    return base, demonstrations, sft


@flow(name="benchmark-dispatch")
def measure(store: str, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Return seconds of each dispatched stage, of each start of Python with the stages, and of each task, in turn."""
    site, dispatched, imports, here = Site(open_store(store), COMPUTE), [], [], []
    for _ in range(rounds):
        arguments = committed(site)
        began = time.perf_counter()
        for run in endings([start(train_sft.order(site, *arguments))]):
            check_ended_well(run, committed=True)
        dispatched.append(time.perf_counter() - began)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import prefect.engine, flows.stages"], cwd=ROOT, check=True)
        imports.append(time.perf_counter() - began)
        began = time.perf_counter()
        train_sft(site, *arguments)
        here.append(time.perf_counter() - began)
    return dispatched, imports, here


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with stack():
        dispatched, imports, here = measure("s3://rs-dpo/benchmark", options.rounds)
    share = (DISPATCHED * statistics.median(dispatched) + TASKS * statistics.median(here)) / HOUR
    for name, seconds in (("dispatched stage", dispatched), ("of which imports", imports), ("task", here)):
        print(f"{name:18} median {statistics.median(seconds):6.2f} s  (from {min(seconds):.2f} to {max(seconds):.2f})")
    print(f"share of a run of an hour: {share:.2%}")
    if options.json:
        print(json.dumps({"dispatched_s": dispatched, "imports_s": imports, "task_s": here, "share_of_an_hour": share}))


if __name__ == "__main__":
    main()
