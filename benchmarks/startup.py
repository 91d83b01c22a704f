"""How long a person waits for a command: whole processes, from their start to their end, medians.

The quickstart is run once; what is measured afterwards finds everything in its store, and computes nothing. Of two
checkouts both take turns on the same store, each with a cache and a Prefect home of its own. Beside the seconds are
those of the CPU, the server's included: on a busy machine they say more.

    python benchmarks/startup.py [--rounds 5] [--against FOLDER] [--only run ...] [--set SECTION.FIELD=VALUE] [--json]

FOLDER is another checkout, the one before. `--set` makes the quickstart smaller, for a slow machine.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from _side_by_side import machine
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
COMMANDS = (
    *("rs_dpo", "quickstart", "chat", "compare", "rounds", "add_prompts", "add_preferences", "ask", "browse"),
    *("publish", "status", "store"),
)
RUN = ("flows.rs_dpo", "configs/quickstart.yaml")
FOUND = "nothing new: the store has every stage"
"""What an unchanged run says."""


class Taken(NamedTuple):
    """What a command has taken, in seconds."""

    wall: float
    cpu: float


class Case(NamedTuple):
    """A command, how it ends, and a piece of what it says."""

    arguments: tuple[str, ...]
    status: int
    says: str


class Checkout:
    """A checkout with a folder of its own for what its commands keep outside of the store."""

    def __init__(self, code: Path, here: Path, own: Path) -> None:
        """Run its commands in the folder `here`."""
        self.here = here
        places = {"PYTHONPATH": str(code), "PREFECT_HOME": str(own / "prefect"), "RSDPO_CACHE": str(own / "cache")}
        self.environment = {**os.environ, **places}
        for folder in (own / "prefect", own / "cache"):
            folder.mkdir(parents=True)

    def taken(self, case: Case) -> Taken:
        """Return how long a command takes, which must end and say what it should."""
        began, before = time.perf_counter(), _cpu()
        done = subprocess.run(
            [sys.executable, "-m", *case.arguments], cwd=self.here, env=self.environment, capture_output=True, text=True
        )
        taken = Taken(time.perf_counter() - began, _cpu() - before)
        said = done.stdout + done.stderr
        if done.returncode != case.status or case.says not in said:
            raise SystemExit(
                f"{' '.join(case.arguments)} ended with {done.returncode}, and not as it should:\n{said[-3000:]}"
            )
        return taken


def _cpu() -> float:
    """Return the CPU seconds of the children that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def cases(overrides: list[str]) -> dict[str, Case]:
    """Return what is measured, by name."""
    run = (*RUN, *(word for each in overrides for word in ("--set", each)))
    found = {f"{name} --help": Case((f"flows.{name}", "--help"), 0, "usage:") for name in COMMANDS}
    return found | {
        "a mistyped setting": Case((*run, "--set", "dpo.bta=1"), 2, "dpo.bta is no known setting"),
        "a wrong flag": Case((*run, "--dryrun"), 2, "unrecognized arguments"),
        "a missing configuration": Case(("flows.rs_dpo", "configs/nothing.yaml"), 2, "does not exist"),
        "a dry run, nothing changed": Case((*run, "--dry-run"), 0, "reuse"),
        "a run, nothing changed": Case(run, 0, FOUND),
    }


def measure(checkouts: dict[str, Checkout], case: Case, rounds: int) -> dict[str, list[Taken]]:
    """Return what a command takes by checkout; who begins alternates. The first turn of each does not count."""
    taken: dict[str, list[Taken]] = {name: [] for name in checkouts}
    for number in range(rounds + 1):
        for name in list(checkouts)[:: 1 if number % 2 else -1]:
            taken[name].append(checkouts[name].taken(case))
    return {name: own[1:] for name, own in taken.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout, whose figures stand beside")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="measure what has a word in its name")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sides = {} if options.against is None else {"before": options.against.resolve()}
    sides["after" if sides else "seconds"] = ROOT
    chosen = {name: case for name, case in cases(options.set).items() if any(word in name for word in options.only)}
    with tempfile.TemporaryDirectory(prefix="rs-dpo-startup-") as folder:
        here = Path(folder)
        (here / "configs").symlink_to(ROOT / "configs")
        checkouts = {name: Checkout(code, here, here / name) for name, code in sides.items()}
        first = ("flows.quickstart", *(word for each in options.set for word in ("--set", each)))
        list(checkouts.values())[-1].taken(Case(first, 0, "Done in"))
        found = {name: measure(checkouts, case, options.rounds) for name, case in chosen.items()}
    cores = len(os.sched_getaffinity(0))
    table = Table(
        "what", *(f"{name} (s)" for name in sides), title=f"{machine()}; this process may use {cores} of them"
    )
    for name, taken in found.items():
        table.add_row(name, *map(_cell, taken.values()))
    Console(width=120).print(table)
    if options.json:
        print(json.dumps(found))


def _cell(taken: list[Taken]) -> str:
    walls = [each.wall for each in taken]
    cpu = statistics.median(each.cpu for each in taken)
    return f"{statistics.median(walls):.2f}  ({min(walls):.2f} to {max(walls):.2f}; CPU {cpu:.2f})"


if __name__ == "__main__":
    main()
