"""What looking costs as a store grows: an unchanged re-run, and one with 1% more prompts, of tables of any size.

The tables of completions and rewards are made without a model, k = 16, in parts of 64 prompts. Each measured step is a
process of its own, as every run is: it looks up what the stages look up, and nothing is drawn or scored. `+1%` is what
is looked up and written for 1% more prompts, whose completions and rewards are made meanwhile, and not counted.

    python benchmarks/growth.py [--prompts 1000 10000 100000] [--s3] [--folder DIR] [--json]
"""

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.config.settings import SamplingConfig, ScoringConfig
from tasks.rewards.table import find_rewards, merge_rewards, rewards_part, rewards_table
from tasks.sampling.completions import completions_table, select_completions
from tasks.sampling.last_list import note_last
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.cover import Selection
from tasks.store.drafts import Draft
from tasks.store.filesystem import open_fs
from tasks.store.folders import Store
from tasks.store.growing import part_name
from tasks.store.parquet import ROWS_PER_FILE, table_bytes
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import Slice, commit_slices, read_slices

K, PART = 16, 64
POLICY, REWARD_MODEL = (Artifact(kind="model", uri=f"memory://{name}", digest=name * 64) for name in "ab")
SAMPLING, SCORING = SamplingConfig(k=K), ScoringConfig()
STAGES = ("load_prompts", "sample_completions", "score_completions")
COLUMNS = ("store", "prompts", "parts", "run", "seconds", "requests", "MB", "memory MB")


class Requests:
    """Counts what goes to S3 and comes back, in this process."""

    def __init__(self, store: Store) -> None:
        """Count from now on; of a local disk nothing."""
        self.number = self.bytes = 0
        if store.uri.startswith("s3://"):
            fs, _ = open_fs(store.uri)
            fs.exists(store.root)  # connects
            events = fs.s3.meta.events
            events.register("before-send.s3", self._sent)
            events.register("after-call.s3", self._came)

    def _sent(self, request: Any, **_: Any) -> None:
        self.number += 1

    def _came(self, http_response: Any, **_: Any) -> None:
        self.bytes += int(http_response.headers.get("Content-Length") or 0)


def prompt_ids(start: int, end: int) -> list[str]:
    """Return the ids of some prompts, as long as real ones and in no order."""
    return [f"{number * 0x9E3779B97F4A7C15 % (1 << 64):016x}{number:048x}" for number in range(start, end)]


def write_prompts(store: Store, number: int) -> Artifact:
    """Commit a table of prompts."""
    files = {}
    for first in range(0, number, ROWS_PER_FILE):
        ids = prompt_ids(first, min(number, first + ROWS_PER_FILE))
        rows = [{"prompt_id": id_, "messages": [{"role": "user", "content": id_}], "source": "growth"} for id_ in ids]
        files[f"rows-{first:09d}.parquet"] = table_bytes(pa.Table.from_pylist(rows, SCHEMAS["prompts"]), "prompts")
    return draft(store, "load_prompts", number).commit("prompts", files, f"{number:064x}", rows=number)


def draft(store: Store, stage: str, number: int) -> Draft:
    """Return where a stage puts its output for so many prompts."""
    return Draft(store, Provenance(stage=stage, version=1, key=f"{number:064x}"))


def draw(store: Store, ids: list[str]) -> Iterator[tuple[Artifact, list[str]]]:
    """Append parts with the completions of prompts; yield each with its prompts."""
    table = completions_table(store, POLICY, SAMPLING)
    for first in range(0, len(ids), PART):
        own = ids[first : first + PART]
        rows = len(own) * K
        columns = {
            "prompt_id": np.repeat(own, K),
            "completion_id": np.tile(np.arange(K), len(own)),
            "completion": ["an answer"] * rows,
            "token_ids": [[1, 2, 3]] * rows,
            "num_tokens": [3] * rows,
            "finish_reason": ["stop"] * rows,
        }
        yield table.append(part_name(own), pa.table(columns).cast(SCHEMAS["completions"])), own


def score(store: Store, slices: list[Slice]) -> list[Slice]:
    """Append the rewards of slices."""
    table, scored = rewards_table(store, REWARD_MODEL, SCORING), []
    for slice_ in slices:
        rows = slice_.read(["prompt_id", "completion_id"])
        rewards = pa.array(np.arange(rows.num_rows), pa.float32())
        scored.append(Slice(table.append(rewards_part(slice_, rows), rows.append_column("reward", rewards))))
    return scored


def extend(store: Store, number: int) -> dict[str, float]:
    """Bring the tables to so many prompts, as a run does; return the seconds of what is not drawing and scoring."""
    prompts, clock = write_prompts(store, number), Clock()
    with clock.runs():
        table = completions_table(store, POLICY, SAMPLING)
        selection = select_completions(table, table.look(), prompts, K)
    _draw_missing(store, selection)
    with clock.runs():
        drawn = commit_slices(draft(store, "sample_completions", number), "completions", selection.slices(), {})
        note_last(table, f"sample_completions/{number:064x}", prompts, K)
        scored = rewards_table(store, REWARD_MODEL, SCORING)
        found = merge_rewards(scored, find_rewards(scored, read_slices(store, drawn)))
        rewards = [slice_ for own in found for slice_ in own.rewards]
    rewards += score(store, [slice_ for own in found for slice_ in own.unscored])
    with clock.runs():
        commit_slices(draft(store, "score_completions", number), "rewards", rewards, {})
    return {"seconds": clock.seconds}


def _draw_missing(store: Store, selection: Selection) -> None:
    for part, own in draw(store, list(selection.missing)):
        selection.add(part, own)


class Clock:
    """Adds up the seconds of some blocks."""

    seconds = 0.0

    @contextlib.contextmanager
    def runs(self) -> Iterator[None]:
        """Count a block."""
        start = time.monotonic()
        yield
        self.seconds += time.monotonic() - start


def look(store: Store, number: int) -> dict[str, float]:
    """Look up what an unchanged run of so many prompts does."""
    clock = Clock()
    with clock.runs():
        missing = [stage for stage in STAGES if draft(store, stage, number).find() is None]
    if missing:
        raise RuntimeError(f"{', '.join(missing)} is not there")
    return {"seconds": clock.seconds}


def measure(uri: str, step: str, number: int) -> None:
    """Take a step in this process, and print what it cost."""
    store = Store(uri)
    requests = Requests(store)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"look": look, "extend": extend}[step](store, number)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {"requests": requests.number, "MB": requests.bytes / 1e6, "memory MB": (peak - before) / 1e3}
    print(json.dumps(found | figures))


def in_process(uri: str, step: str, number: int) -> dict[str, float]:
    """Take a step in a process of its own."""
    command = [sys.executable, __file__, "--measure", uri, step, str(number)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def grow(uri: str, prompts: int) -> Iterator[dict[str, Any]]:
    """Yield a row of the table for each measured step."""
    more = prompts + max(1, prompts // 100)
    in_process(uri, "extend", prompts)
    for name, step, number in (("unchanged", "look", prompts), ("+1%", "extend", more), ("unchanged", "look", more)):
        parts = -(-prompts // PART)
        yield {"store": uri.partition(":")[0], "prompts": number, "parts": parts, "run": name} | in_process(
            uri, step, number
        )


def print_row(cells: Iterable[Any]) -> None:
    """Print a row of the table as soon as it is known: the next one may take minutes."""
    print("".join(f"{cell:10.2f}" if isinstance(cell, float) else f"{cell:>10}" for cell in cells), flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--s3", action="store_true", help="on rclone serve s3 in place of a local disk")
    parser.add_argument("--folder", help="for the stores; default: a temporary one")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], options.measure[1], int(options.measure[2]))
        return
    rows = []
    print_row(COLUMNS)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, _stores(Path(folder), options.s3) as base:
        for row in chain.from_iterable(grow(f"{base}/{number}", number) for number in options.prompts):
            rows.append(row)
            print_row(row.values())
    if options.json:
        print(json.dumps(rows))


@contextlib.contextmanager
def _stores(folder: Path, on_s3: bool) -> Iterator[str]:
    """Give the URI under which stores are made."""
    if not on_s3:
        yield f"file://{folder}"
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
    from s3_servers import rclone, used_by_s3fs

    (folder / "stores").mkdir()
    with rclone(folder) as url, used_by_s3fs(url):
        yield "s3://stores"


if __name__ == "__main__":
    main()
