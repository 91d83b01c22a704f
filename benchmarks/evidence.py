"""Run the shipped comparisons and write docs/evidence.md: what came out, with intervals, whatever it is.

The quickstart's world must be there (`python -m flows.quickstart`). A comparison that was run before is found.

    python benchmarks/evidence.py [configs/compare_facts.yaml ...]
"""

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SHIPPED = ("configs/compare_facts.yaml",)
COLOURS = {
    "ink": "#57606a",
    "grid": "#d1d9e0",
    "one": "#9a6700",
    "two": "#0969da",
    "mark": "#cf222e",
    "three": "#1a7f37",
    "four": "#8250df",
    "five": "#6e7781",
}
"""Of a figure outside of its page, on light and on dark."""
HEAD = """# Evidence

What the shipped comparisons give, written by `make evidence`. How arms are compared: [Comparing](comparing.md).
"""


def run(config: str) -> dict[str, Any]:
    """Run a comparison; return its last line of JSON."""
    command = [sys.executable, "-m", "flows.compare", config, "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def section(config: str, found: dict[str, Any]) -> str:
    """Return what a comparison has found as Markdown, and write its figure."""
    name = Path(config).stem
    figure = DOCS / "img" / f"{name}.svg"
    page = Path(found["page"].removeprefix("file://")).read_text()
    svg = re.search(r"<svg.*?</svg>", page, re.S)
    assert svg is not None
    figure.write_text(re.sub(r"var\(--(\w+)\)", lambda match: COLOURS[match[1]], svg[0]) + "\n")
    lines = [f"## {name.replace('_', ' ')}", "", f"![Reward against KL, an arm a line](img/{figure.name})", ""]
    for part in found["parts"]:
        if part["name"]:
            lines += [f"### {part['name'].strip().capitalize()}", ""]
        lines += [*table(part["head"], part["rows"]), "", *(f"- {each['sentence']}" for each in part["verdicts"]), ""]
        lines += [f"- {arm} has no result: {why}" for arm, why in part["failed"].items()]
    return "\n".join(lines)


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def gpu() -> str:
    """Return what computes beside the CPU."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def main() -> None:
    """Run, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=SHIPPED)
    options = parser.parse_args()
    sections = [section(config, run(config)) for config in options.configs]
    machine = f"{datetime.date.today()}, {os.cpu_count()} cores ({platform.machine()}), {gpu()}.\n"
    (DOCS / "evidence.md").write_text("\n".join([HEAD, machine, *sections]))


if __name__ == "__main__":
    main()
