"""Compare the store with pyarrow alone on the same file systems: seconds to write and read a table, side by side.

Both sides write zstd Parquet, to a local folder and through the same s3fs to `rclone serve s3`. The rounds of the two
sides alternate. The store's figures include its hashes and its manifest; `read first` is what a process pays that looks
the table up (which reads it all, to compare it) and then reads it, `read` the same without the look-up.

    python benchmarks/store.py [--rounds 5] [--json]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from tasks import verify
from tasks.artifacts import Manifest, Provenance
from tasks.parquet import read_table, table_bytes
from tasks.schemas import SCHEMAS
from tasks.storage import Store

PROVENANCE = Provenance(stage="benchmark", version=1, key="0" * 64)
ROWS = {"1 MB": 600, "200 MB": 110_000}
WORDS = np.array(["the", "fox", "seal", "harbour", "quietly", "answers", "because", "twelve", "colour", "evening"])
Side = Callable[[], object]


def completions(rows: int) -> pa.Table:
    """Return a table of completions: 400 token ids and 120 words a row, as random as a sampled text is at worst."""
    rng = np.random.default_rng(0)
    tokens = pa.array(np.minimum(rng.zipf(1.2, rows * 400), 32_000).astype(np.int32))
    words = WORDS[rng.integers(0, len(WORDS), (rows, 120))]
    columns = {
        "prompt_id": [f"{i // 16:064x}" for i in range(rows)],
        "completion_id": [i % 16 for i in range(rows)],
        "completion": [" ".join(line) for line in words],
        "token_ids": pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * 400, tokens),
        "num_tokens": [400] * rows,
        "finish_reason": ["stop"] * rows,
    }
    return pa.table(columns).cast(SCHEMAS["completions"])


def sides(store: Store, table: pa.Table) -> dict[str, tuple[Side, Side]]:
    """Return what is compared: name -> what the store does, what pyarrow does."""
    plain = f"{store.root}/plain.parquet"
    manifest = Manifest(kind="completions", digest="1", rows=table.num_rows, provenance=PROVENANCE)

    def write() -> object:
        return store.commit("t/1", {"rows.parquet": table_bytes(table, "completions")}, manifest)

    def first() -> object:
        verify._verified.clear()
        return read_table(store.find("t/1"))

    def write_plain() -> None:
        with store.fs.open(plain, "wb") as file:
            pq.write_table(table, file, compression="zstd")

    def read_plain() -> pa.Table:
        return pq.read_table(plain, filesystem=store.fs)

    artifact = write()
    write_plain()
    assert read_table(artifact).equals(read_plain())
    return {
        "write": (write, write_plain),
        "read": (lambda: read_table(artifact), read_plain),
        "read first": (first, read_plain),
    }


def measure(store: Store, table: pa.Table, rounds: int) -> dict[str, dict[str, float]]:
    """Return the median seconds of both sides, and how fast the store is in units of pyarrow's speed."""
    seconds: dict[str, list[tuple[float, float]]] = {}
    compared = sides(store, table)
    for number in range(rounds):
        for name, pair in compared.items():
            order = pair if number % 2 else pair[::-1]
            took = {side: _seconds(side) for side in order}
            seconds.setdefault(name, []).append((took[pair[0]], took[pair[1]]))
    result = {}
    for name, pairs in seconds.items():
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        result[name] = {"store": ours, "pyarrow": theirs, "ratio": theirs / ours}
    return result


def _seconds(side: Side) -> float:
    start = time.perf_counter()
    side()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from s3_servers import rclone, used_by_s3fs

    results = {}
    with tempfile.TemporaryDirectory(prefix="rs-dpo-benchmark-") as folder:
        (Path(folder) / "s3" / "bucket").mkdir(parents=True)
        with rclone(Path(folder) / "s3") as url, used_by_s3fs(url):
            for size, rows in ROWS.items():
                table = completions(rows)
                for uri in (f"{folder}/store", "s3://bucket/store"):
                    for name, figures in measure(Store(uri), table, options.rounds).items():
                        results[f"{name}, {size}, {'S3' if '://' in uri else 'local'}"] = figures
    shown = Table("table of completions", "store (s)", "pyarrow (s)", "speed of the store / pyarrow", title="Medians")
    for name, figures in results.items():
        shown.add_row(name, *(f"{figures[column]:.3f}" for column in ("store", "pyarrow")), f"{figures['ratio']:.2f}")
    Console().print(shown)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
