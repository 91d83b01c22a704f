"""Measure how well a pilot predicts its whole run: what was predicted, its 90% interval, and what came, side by side.

On the quickstart's world. The models before sampling are made once; each round begins with a copy of that store, runs a
pilot, then the whole run.

    python benchmarks/pilot.py [--pilots 20 40 80] [--rounds 1] [--scale 1.0] [--json]
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.examples.world import write_world

ROOT = Path(__file__).parents[1]
FILES = ("prompts", "demonstrations", "preferences", "evaluation_prompts")


def run(world: Path, store: Path, *options: str) -> dict[str, Any]:
    """Run the quickstart's configuration; return its last line of JSON."""
    settings = [f"data.{name}={world / name}.jsonl" for name in FILES]
    settings += [f"sft.base_model={world / 'base_model'}", f"store={store}"]
    overrides = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "flows.rs_dpo", "configs/quickstart.yaml", *overrides, "--json", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(folder: Path, pilots: list[int], rounds: int, scale: float) -> list[dict[str, Any]]:
    """Return a row for each quantity of each pilot."""
    world, base, store = folder / "world", folder / "base", folder / "store"
    write_world(world, scale=scale)
    run(world, base, "--pilot", "2")
    rows = []
    for _ in range(rounds):
        for pilot in pilots:
            shutil.rmtree(store, ignore_errors=True)
            shutil.copytree(base, store)
            run(world, store, "--pilot", str(pilot))
            predicted = run(world, store)["predicted"]
            rows += [{"pilot": pilot, "name": name, **value} for name, value in predicted.items()]
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows, and the share that is within its interval."""
    table = Table("pilot", "quantity", "predicted", "low", "high", "came", "came / predicted", "within")
    known = [row for row in rows if row["came"] is not None]
    for row in known:
        within = "yes" if row["low"] <= row["came"] <= row["high"] else "no"
        figures = (f"{row[name]:,.1f}" for name in ("predicted", "low", "high", "came"))
        share = f"{row['came'] / row['predicted']:.2f}" if row["predicted"] else "-"
        table.add_row(str(row["pilot"]), row["name"], *figures, share, within)
    Console(width=160).print(table)
    within = sum(row["low"] <= row["came"] <= row["high"] for row in known)
    print(f"{within} of {len(known)} are within their 90% interval")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pilots", type=int, nargs="+", default=[20, 40, 80])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the world")
    parser.add_argument("--json", action="store_true", help="print the rows as one last line of JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rs-dpo-pilot-") as folder:
        rows = measure(Path(folder), options.pilots, options.rounds, options.scale)
    show(rows)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
