"""Two sides of a benchmark in one process, taking turns on the same inputs; medians and ratios, printed and kept."""

import argparse
import contextlib
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results.json"
GPU_RESULTS = RESULTS.with_name("results-gpu.json")
VERSIONS = ("torch", "transformers", "trl", "peft", "vllm")


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
    parser.add_argument("--results", type=Path, help="file that the rows are put into")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options; with `--device cpu` nothing sees a GPU, with `cuda` there must be one."""
    import torch

    chosen = parser.parse_args()
    if chosen.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        parser.error(f"--device cuda: torch {torch.__version__} sees no CUDA device")
    return chosen


def take_turns(ours: Callable[[], Any], other: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Return the median seconds of both sides, which take turns; who begins alternates."""
    seconds = in_turns({"ours": ours, "other": other}, rounds)
    return statistics.median(seconds["ours"]), statistics.median(seconds["other"])


def in_turns(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each side's turns; who begins alternates."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sides if number % 2 == 0 else reversed(sides):
            clear()
            start = time.perf_counter()
            sides[name]()
            wait()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def clear() -> None:
    """Free what the side before has left on a GPU, and forget its peak."""
    gc.collect()
    if (cuda := used_gpu()) is not None:
        cuda.empty_cache()
        cuda.reset_peak_memory_stats()


def wait() -> None:
    """Wait for what a GPU was given to do."""
    if (cuda := used_gpu()) is not None:
        cuda.synchronize()


def peak() -> float:
    """Return the most memory that was taken on a GPU, in GB; 0 where none was used."""
    return 0.0 if (cuda := used_gpu()) is None else cuda.max_memory_allocated() / 1e9


def used_gpu() -> Any:
    """Return `torch.cuda` where this process has used a GPU."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def faster(name: str, seconds: tuple[float, float], at_least: float | None = None) -> Row:
    """Return the row of two medians in seconds."""
    ours, other = seconds
    return Row(f"{name} (s)", ours, other, other / ours, at_least)


def report(title: str, facts: dict[str, Any], rows: Iterable[Row], chosen: argparse.Namespace | None = None) -> None:
    """Print the machine, the facts and the rows, and keep them.

    Args:
        title: Of the benchmark.
        facts: What was compared.
        rows: The comparisons.
        chosen: The options; None: a benchmark that needs no GPU.
    """
    rows, console = list(rows), Console(width=120)
    console.print(f"[bold]{title}[/bold] on {machine()}")
    for name, value in facts.items():
        console.print(f"  {name}: {value}")
    table = Table("what", "ours", "other", "ratio", "at least")
    for row in rows:
        least = "" if row.at_least is None else f"{row.at_least:g}"
        table.add_row(row.name, f"{row.ours:.4g}", f"{row.other:.4g}", f"{row.ratio:.3g}", least)
    console.print(table)
    if chosen is not None and chosen.device == "cuda":
        keep_section(title, facts, rows, chosen.results or GPU_RESULTS)
    else:
        keep_rows(rows, (chosen and chosen.results) or RESULTS)


def keep_rows(rows: list[Row], path: Path) -> None:
    """Put rows into a file, each in place of its namesake."""
    kept = {row["name"]: row for row in json.loads(path.read_text())} if path.exists() else {}
    kept |= {row.name: row._asdict() for row in rows}
    path.write_text(json.dumps([kept[name] for name in sorted(kept)], indent=2) + "\n")


def keep_section(title: str, facts: dict[str, Any], rows: list[Row], path: Path) -> None:
    """Put a benchmark into a file in place of its namesake, with the date, the card and the versions of its run."""
    import torch

    kept = json.loads(path.read_text()) if path.exists() else {}
    card = torch.cuda.get_device_properties() if torch.cuda.is_available() else None
    kept[title] = {
        "date": time.strftime("%Y-%m-%d"),
        "card": card and card.name,
        "memory_gb": card and round(card.total_memory / 1e9, 1),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions(),
        "facts": {name: str(value) for name, value in facts.items()},
        "rows": [row._asdict() for row in rows],
    }
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def versions() -> dict[str, str]:
    """Return the versions of what decides the figures, as far as it is installed."""
    found = {}
    for name in VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def machine() -> str:
    """Name the date and what this runs on."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({platform.machine()}), {gpu}"
