"""Two sides of a benchmark in one process, taking turns on the same inputs; medians and ratios, printed and kept."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results.json"


class Row(NamedTuple):
    """One comparison."""

    name: str
    """What is compared, with the unit of both sides."""
    ours: float
    other: float
    ratio: float
    """How much better ours is: 1 is even."""
    at_least: float | None = None
    """What the ratio must reach; None where nothing is demanded."""


def options(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """Return the parser of the options that every side-by-side benchmark has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", help="folder or hub id of a causal model; a tiny one with random weights otherwise")
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each side")
    return parser


def take_turns(ours: Callable[[], Any], other: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Return the median seconds of both sides, which take turns; who begins alternates."""
    seconds: dict[str, list[float]] = {"ours": [], "other": []}
    sides = [("ours", ours), ("other", other)]
    for number in range(rounds):
        for name, side in sides if number % 2 == 0 else reversed(sides):
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    return statistics.median(seconds["ours"]), statistics.median(seconds["other"])


def faster(name: str, seconds: tuple[float, float], at_least: float | None = None) -> Row:
    """Return the row of two medians in seconds."""
    ours, other = seconds
    return Row(f"{name} (s)", ours, other, other / ours, at_least)


def report(title: str, facts: dict[str, Any], rows: Iterable[Row]) -> None:
    """Print the machine, the facts and the rows, and put the rows into results.json, each in place of its namesake."""
    rows, console = list(rows), Console(width=120)
    console.print(f"[bold]{title}[/bold] on {machine()}")
    for name, value in facts.items():
        console.print(f"  {name}: {value}")
    table = Table("what", "ours", "other", "ratio", "at least")
    for row in rows:
        least = "" if row.at_least is None else f"{row.at_least:g}"
        table.add_row(row.name, f"{row.ours:.4g}", f"{row.other:.4g}", f"{row.ratio:.3g}", least)
    console.print(table)
    kept = {row["name"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    kept |= {row.name: row._asdict() for row in rows}
    RESULTS.write_text(json.dumps([kept[name] for name in sorted(kept)], indent=2) + "\n")


def machine() -> str:
    """Name the date and what this runs on."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({platform.machine()}), {gpu}"
