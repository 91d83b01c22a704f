"""Run the shipped comparisons and write docs/evidence.md: what came out, with intervals, whatever it is.

Each `configs/compare_NAME.yaml` has a section; those that are not run stay as they are. The quickstart's world must be
there (`python -m flows.quickstart`). A comparison that was run before is found.

    python benchmarks/evidence.py [--only facts paper]
"""

import argparse
import datetime
import html
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
PAGE = DOCS / "evidence.md"
SHIPPED = {path.stem.removeprefix("compare_"): path for path in sorted(ROOT.glob("configs/compare_*.yaml"))}
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
FEW = 6
"""Arms up to which each pair has a sentence; of more, a table says which are told apart."""


def run(config: Path, overrides: list[str]) -> dict[str, Any]:
    """Run a comparison; return its last line of JSON."""
    changed = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "flows.compare", str(config.relative_to(ROOT)), *changed, "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def sections(text: str) -> dict[str, str]:
    """Return the sections of the page by name, each with its heading."""
    return {piece.partition("\n")[0]: f"## {piece.rstrip()}\n" for piece in re.split(r"^## ", text, flags=re.M)[1:]}


def section(name: str, found: dict[str, Any], overrides: list[str]) -> str:
    """Return what a comparison has found as Markdown, and write its figures."""
    page = Path(found["page"].removeprefix("file://")).read_text()
    changed = "".join(f" with `{override}`" for override in overrides)
    lines = [f"## {name}", "", f"`{SHIPPED[name].relative_to(ROOT)}`{changed}, {machine()}.", "", *figures(name, page)]
    for part in found["parts"]:
        lines += part_lines(part)
    return "\n".join(lines)


def figures(name: str, page: str) -> list[str]:
    """Write the figures of the comparison itself, pairs of arms apart; return the lines that show them."""
    lines = []
    main = re.split(r"<h2>[^<]* pairs each", page)[0]
    for svg, caption in re.findall(r"(<svg.*?</svg>)\s*<figcaption>(.*?)</figcaption>", main, re.S):
        if not caption.startswith("Each pair of arms"):
            figure = DOCS / "img" / f"compare_{name}{f'_{len(lines) // 2}' if lines else ''}.svg"
            figure.write_text(alone(svg) + "\n")
            lines += [f"![{html.unescape(caption)}](img/{figure.name})", ""]
    return lines


def alone(svg: str) -> str:
    """Return a figure of a page as a file of its own, with colours and with the namespaces that a page needs not."""
    named = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"', 1)
    return re.sub(r"var\(--(\w+)\)", lambda match: COLOURS[match[1]], named)


def part_lines(part: dict[str, Any]) -> list[str]:
    """Return the tables and verdicts of a part of a comparison."""
    lines = [f"### {part['name'].strip().capitalize()}", ""] if part["name"] else []
    lines += [*table(part["head"], part["rows"]), ""]
    if part["weakened"]["rows"]:
        lines += [*table(**part["weakened"]), ""]
    arms = list(dict.fromkeys(arm for each in part["verdicts"] for arm in (each["arm"], each["other"])))
    if len(arms) > FEW:
        lines += [
            "Whether a row's arm is better than a column's (=: not told apart):",
            "",
            *matrix(arms, part["verdicts"]),
        ]
    else:
        lines += [f"- {each['sentence']}" for each in part["verdicts"]]
    lines += ["", *(f"- {arm} has no result: {why}" for arm, why in part["failed"].items())]
    return [*lines, ""] if part["failed"] else lines


def matrix(arms: list[str], verdicts: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table of arms against arms, the later ones in the columns."""
    said = {(each["arm"], each["other"]): each["word"] or "=" for each in verdicts}
    return table(["", *arms[1:]], [[arm, *(said.get((arm, other), "") for other in arms[1:])] for arm in arms[:-1]])


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def machine() -> str:
    """Return when and where it was run."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{datetime.date.today()}, {os.cpu_count()} cores ({platform.machine()}), {gpu}"


def main() -> None:
    """Run, and write the page after each comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(SHIPPED), choices=list(SHIPPED), metavar="NAME")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="as in flows.compare")
    options = parser.parse_args()
    for name in options.only:
        made = section(name, run(SHIPPED[name], options.set), options.set)
        there = {**sections(PAGE.read_text()), name: made.rstrip() + "\n"}
        PAGE.write_text("\n".join([HEAD, *(there[name] for name in SHIPPED if name in there)]))


if __name__ == "__main__":
    main()
