"""What looking costs: the pages of `python -m flows.browse` over a large run, asked over HTTP as a browser would.

A store is made up without a model: prompts, completions of 40 words, rewards, every pair of RS-DPO's rule. The first
page lists the runs; `opening` is the first look at a run, until all of it is read; the rest are later pages, each asked
for several times with other values.

    python benchmarks/browser.py [--prompts 100000] [--k 16] [--store FOLDER] [--json]
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
from _side_by_side import machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

from browsed_store import Size, write_run

from tasks.store.folders import Store
from tasks.store.runs import list_runs

ROUNDS = 10


def pages(run: str, prompt: str, number: int) -> dict[str, str]:
    """Return the later pages by name; the number changes what is asked for."""
    word = ["cold", "bright", "twelve"][number % 3]
    at, eta = 101 * number, 0.6 + number / 40
    return {
        "threshold": f"/runs/{run}/threshold?tau={0.5 + number / 10}&eta={eta}",
        "prompts, first": f"/runs/{run}",
        "prompts, by gap and length": f"/runs/{run}?gap_from={number / 10}&length_to=39.{number}&order=widest+gap",
        "prompts, monitor": f"/runs/{run}?flag=truncated&start={50 * number}",
        "prompts, text": f"/runs/{run}?text=question+{number}7",
        "prompts, text of completions": f"/runs/{run}?within=completions&text=fox+seal+{word}",
        "prompts, far down": f"/runs/{run}?order=lowest+reward&start={900 * number}",
        "a prompt": f"/runs/{run}/prompts/{prompt}?order=widest+gap&at={at}",
        "before and after": f"/runs/{run}/evaluation?start={20 * number}",
        "lineage": f"/runs/{run}/lineage",
        "two runs": f"/compare?run={run}&run={run}&start={50 * number}",
    }


def measure(store: Store, url: str, process: psutil.Process) -> dict[str, Any]:
    """Return seconds: of the first page, of opening, and the median and slowest of each later page."""
    run = list_runs(store)[0][-1].id
    client = httpx.Client(base_url=url, timeout=600)

    def ask(address: str) -> tuple[float, str]:
        start = time.perf_counter()
        answer = client.get(address)
        assert answer.status_code == 200, answer.text
        return time.perf_counter() - start, answer.text

    figures: dict[str, Any] = {"first page": ask("/")[0]}
    start = time.perf_counter()
    figures["opening, first answer"], text = ask(f"/runs/{run}")
    waits = []
    while "is being read" in text:
        time.sleep(0.4)
        seconds, text = ask(f"/runs/{run}")
        waits.append(seconds)
    figures["opening, until all is read"] = time.perf_counter() - start
    figures["opening, slowest answer meanwhile"] = max(waits, default=0.0)
    prompt = re.findall(r"prompts/([0-9a-f]{64})", text)
    for name in pages(run, prompt[0], 0):
        taken = sorted(ask(pages(run, prompt[number], number)[name])[0] for number in range(ROUNDS))
        figures[name] = (taken[ROUNDS // 2], taken[-1])
    start = time.perf_counter()
    with client.stream("GET", f"/runs/{run}/export.jsonl?text=question+77") as answer:
        figures["export, first answer"] = time.perf_counter() - start
        lines = sum(1 for _ in answer.iter_lines())
    figures |= {"export, lines": lines, "export": time.perf_counter() - start}
    return {**figures, "memory (GiB)": process.memory_info().rss / 2**30}


def serve_and_measure(store: Store) -> dict[str, Any]:
    """Start the command on a free port, measure, and stop it."""
    command = [sys.executable, "-m", "flows.browse", store.uri, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found, "the server did not start"
            return measure(store, found[0], psutil.Process(server.pid))
        finally:
            server.terminate()


def main() -> None:
    """Write a store where none is given or the one given is empty, and print what the pages take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--store", help="a folder to keep the store in; it is used again")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(options.store or scratch)
        if not Path(store.root, "runs").exists():
            write_run(store, Size(options.prompts, options.k, words=40, held_out=200))
        figures = serve_and_measure(store)
    if options.json:
        print(json.dumps(figures))
        return
    print(f"{options.prompts:,} prompts x {options.k} on {machine()}; milliseconds: median of {ROUNDS}, slowest")
    for name, value in figures.items():
        both = value if isinstance(value, tuple) else (value,)
        scale, digits = (1, 2) if name in ("memory (GiB)", "export, lines") else (1000, 0)
        print(f"{name:36}" + "".join(f"{scale * each:12,.{digits}f}" for each in both))


if __name__ == "__main__":
    main()
