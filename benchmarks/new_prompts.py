"""What a re-run costs: 1,000 prompts, then 10 more, then none, in the deployed system.

Prompts are added with flows.add_prompts, whose event starts the pipeline `rs-dpo/new-prompts`; the third run is one of
`rs-dpo/scheduled`. All GPU stages compute on the pool of GPU workers. Printed are the prompts that were sampled, the
runs that GPU workers had to do, and the seconds from the pipeline's start to its end.

    python benchmarks/new_prompts.py [--prompts 1000] [--more 10] [--json]      (needs PostgreSQL)
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from _stack import ROOT, stack, wait_for
from prefect import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from tasks.store.folders import Store
from tasks.store.manifests import read_manifest
from tasks.store.runs import read_runs

BEFORE = ("", "Please tell me: ", "A quick question. ", "I wonder: ", "Hello! ")


def write_prompts(path: Path, number: int, skip: int) -> None:
    """Write some of the world's prompts, each said in several ways."""
    rows = [json.loads(line) for line in (ROOT / ".rsdpo/world/prompts.jsonl").read_text().splitlines()]
    said = [{**row, "prompt": before + row["prompt"]} for before in BEFORE for row in rows]
    random.Random(0).shuffle(said)
    if skip + number > len(said):
        raise ValueError(f"{skip + number} prompts were asked for, the world has {len(said)}")
    path.write_text("".join(json.dumps(row) + "\n" for row in said[skip : skip + number]))


def add_prompts(number: int, skip: int) -> None:
    """Add prompts as a person would."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompts.jsonl"
        write_prompts(path, number, skip)
        command = [sys.executable, "-m", "flows.add_prompts", str(path), "--store", os.environ["RSDPO_STORE"]]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def pipelines() -> list[FlowRun]:
    """Return the runs of the pipeline that have ended, oldest first."""
    with get_client(sync_client=True) as client:
        names = DeploymentFilter(name=DeploymentFilterName(any_=["new-prompts", "scheduled"]))
        runs = [run for run in client.read_flow_runs(deployment_filter=names) if run.state and run.state.is_final()]
    if broken := [run for run in runs if not run.state.is_completed()]:
        raise RuntimeError(f"pipeline {broken[0].name} {broken[0].state}")
    return sorted(runs, key=lambda run: run.start_time)


def figures(run: FlowRun) -> dict[str, Any]:
    """Return what a pipeline's run did."""
    with get_client(sync_client=True) as client:
        tags = FlowRunFilterTags(all_=[f"parent:{run.id}"])
        children = client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=tags))
    store = Store(os.environ["RSDPO_STORE"])
    record = read_runs(store)[-1]
    manifest = read_manifest(f"{store.uri}/{record.artifacts['completions']}")
    drawn = datetime.fromisoformat(manifest.created) >= record.started.replace(microsecond=0)
    return {
        "sampled": manifest.stats["sampled_prompts"] if drawn else 0,
        "prompts": manifest.rows // manifest.provenance.config["sampling"]["k"],
        "gpu_runs": len(children),
        "seconds": round((run.end_time - run.start_time).total_seconds(), 1),
    }


def main() -> None:
    """Run the pipeline three times and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--more", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print(f"{'':24} {'prompts':>8} {'sampled':>8} {'GPU runs':>9} {'seconds':>8}")
    done: list[dict[str, Any]] = []
    with stack():
        steps = {
            f"{options.prompts} prompts added": lambda: add_prompts(options.prompts, 0),
            f"{options.more} more": lambda: add_prompts(options.more, options.prompts),
            "none": lambda: run_deployment("rs-dpo/scheduled", timeout=0),
        }
        for name, begin in steps.items():
            begin()
            run = wait_for(f"run {name!r}", lambda: pipelines()[len(done) :], seconds=3600)[0]
            done.append(figures(run))
            print(
                f"{name:24} {done[-1]['prompts']:8} {done[-1]['sampled']:8} {done[-1]['gpu_runs']:9} "
                f"{done[-1]['seconds']:8}",
                flush=True,
            )
    if options.json:
        print(json.dumps(done))


if __name__ == "__main__":
    main()
