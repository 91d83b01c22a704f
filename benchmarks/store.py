"""Compare the store with pyarrow alone on the same file systems: seconds to write and read a table, side by side.

Both sides write zstd Parquet, to a local folder and through the same s3fs to `rclone serve s3`. The rounds of the two
sides alternate. The store's figures include its hashes and its manifest; `read first` is what a process pays that looks
the table up on a machine that has not seen it (which reads it all, to compare it) and then reads it, `read` the same
without the look-up.

    python benchmarks/store.py [--rounds 5]
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _side_by_side import Row, faster, options, report, take_turns

from tasks.store import hashed
from tasks.store.artifacts import Manifest, Provenance
from tasks.store.folders import Store
from tasks.store.parquet import read_table, table_bytes
from tasks.store.schemas import SCHEMAS
from tasks.store.scratch import cache_folder

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
        (cache_folder() / "hashes.sqlite").unlink(missing_ok=True)
        hashed._connect.cache_clear()
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


def measure(store: Store, table: pa.Table, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the median seconds of both sides."""
    return {name: take_turns(ours, theirs, rounds) for name, (ours, theirs) in sides(store, table).items()}


def main() -> None:
    chosen = options(__doc__, rounds=5).parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
    from s3_servers import rclone, used_by_s3fs

    results: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="rs-dpo-benchmark-") as folder:
        (Path(folder) / "s3" / "bucket").mkdir(parents=True)
        with rclone(Path(folder) / "s3") as url, used_by_s3fs(url):
            for size, rows in ROWS.items():
                table = completions(rows)
                for uri in (f"{folder}/store", "s3://bucket/store"):
                    where = "S3" if "://" in uri else "local"
                    for name, seconds in measure(Store(uri), table, chosen.rounds).items():
                        results.append(faster(f"store: {name}, {size}, {where}", seconds))
    report("The store, against pyarrow alone", {"store in S3": "rclone serve s3 on this machine"}, results, chosen)


if __name__ == "__main__":
    main()
