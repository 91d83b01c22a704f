"""Measure what models kept along a training cost: the seconds of DPO's steps with and without them, in turns.

On the quickstart's world, whole weights and LoRA. Each turn is a training of its own seed, on pairs that are there.

    python benchmarks/snapshots.py [--rounds 4] [--snapshots 4]
"""

import argparse
import itertools
import statistics
import tempfile
from pathlib import Path

from _side_by_side import faster, report
from pilot import run

from tasks.examples.world import write_world
from tasks.store.manifests import read_manifest


def step_seconds(world: Path, store: Path, seed: int, snapshots: int, lora: str) -> float:
    """Return the seconds of the steps of a training that the store does not have."""
    settings = [f"dpo.seed={seed}", f"dpo.snapshots={snapshots}", f"dpo.lora={lora}", "data.max_evaluation_prompts=2"]
    found = run(world, store, *(part for setting in settings for part in ("--set", setting)))
    cost = read_manifest(found["artifacts"]["aligned"]["uri"]).cost
    return float(cost["phases"]["training steps"]["seconds"])


def take_turns(world: Path, store: Path, snapshots: int, lora: str, rounds: int) -> tuple[float, float]:
    """Return the median seconds with snapshots and without; the side that begins changes from turn to turn."""
    seconds: dict[int, list[float]] = {snapshots: [], 0: []}
    sides = itertools.cycle((snapshots, 0, 0, snapshots))
    for seed, kept in zip(range(2 * rounds), sides, strict=False):
        seconds[kept].append(step_seconds(world, store, seed + 1, kept, lora))
    return statistics.median(seconds[snapshots]), statistics.median(seconds[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="turns of each side")
    parser.add_argument("--snapshots", type=int, default=4, help="models kept along a training")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="rs-dpo-snapshots-") as folder:
        world, store = Path(folder) / "world", Path(folder) / "store"
        write_world(world)
        for name, lora in (("whole weights", "null"), ("LoRA", "{}")):
            seconds = take_turns(world, store, options.snapshots, lora, options.rounds)
            rows.append(faster(f"DPO's steps, {options.snapshots} snapshots against none, {name}", seconds, 0.9))
    report("Snapshots", {"turns of each side": options.rounds}, rows)


if __name__ == "__main__":
    main()
