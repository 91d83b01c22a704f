"""Pair selection beside Algorithm 1 as it is written, ids beside texts, and memory at ten times the prompts.

- Speed: `select_pairs` beside the double loop of Algorithm 1 (arXiv:2402.10038) in Python, sigma((r_j - r_l) / tau) >
  eta for each j and l of each prompt; and beside the k x k comparison that one writes with numpy first. The loop runs
  on the first prompts only, and its rate is taken for all. One thread each.
- Bytes: the pair table as `build_pairs` writes it beside the same pairs with their texts, in zstd Parquet too, each
  text stored once (a dictionary of any size). Texts are words that Zipf's law draws, about 4/3 tokens each.
- Memory: the peak (VmHWM) of a process that runs the stage `build_pairs` on a local store, 100,000 prompts and ten
  times as many. Texts are short there; parts are of 4,000 prompts.

Rewards are spread as the paper's: in 22.5% of the prompts with a standard deviation of 0.778, in the rest of 0.359.

    python benchmarks/selection.py [--rounds 5]
"""

import argparse
import hashlib
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from _side_by_side import Row, options, report, take_turns

from tasks.pairs import build_pairs, pairs_of_parts, write_pairs
from tasks.selection.counts import PairCounts
from tasks.selection.pairs import PairIndices
from tasks.selection.strategies import PairsConfig
from tasks.selection.threshold import gap_threshold, select_pairs
from tasks.store.artifacts import Artifact, Manifest, Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import Slice, commit_slices

K, TAU, ETA = 16, 1.0, 0.85
PAPER = {"pairs a prompt": 3.17, "prompts with pairs": 0.26, "paired completions a prompt": 2.43}
PROMPTS, LOOPED = 1_000_000, 2_000
PART, SIZES = 4_000, (100_000, 1_000_000)
WORDS, PROMPT_WORDS, COMPLETION_WORDS = 5_000, 131, 192
"""175 and 256 tokens at 4/3 a word."""


def draw_rewards(prompts: int, seed: int) -> np.ndarray:
    """Return (prompts, K) rewards that are spread as the paper's."""
    rng = np.random.default_rng(seed)
    spread = np.where(rng.random(prompts) < 0.225, 0.778, 0.359)
    return rng.normal(size=(prompts, K)) * spread[:, None]


def algorithm_1(rewards: list[list[float]]) -> list[tuple[int, int, int]]:
    """Return the pairs of Algorithm 1 as it is written."""
    pairs = []
    for row, own in enumerate(rewards):
        for j in range(K):
            for i in range(K):
                if 1 / (1 + math.exp(-(own[j] - own[i]) / TAU)) > ETA:
                    pairs.append((row, j, i))
    return pairs


def every_comparison(rewards: np.ndarray) -> PairIndices:
    """Return the same pairs by numpy, comparing every completion with every other, in blocks that fit the cache."""
    threshold, found = gap_threshold(TAU, ETA), []
    for start in range(0, len(rewards), 1024):
        block = rewards[start : start + 1024]
        row, chosen, rejected = np.nonzero(block[:, :, None] - block[:, None, :] > threshold)
        found.append((row + start, chosen, rejected))
    return PairIndices(*map(np.concatenate, zip(*found, strict=True)))


def facts_of(found: PairIndices, prompts: int) -> dict[str, float]:
    """Return the figures that the paper's data have too."""
    paired = np.unique(np.concatenate([found.row * K + found.chosen, found.row * K + found.rejected]))
    active = np.unique(found.row).size
    return dict(zip(PAPER, (found.row.size / prompts, active / prompts, paired.size / prompts), strict=True))


def speed(rounds: int) -> tuple[dict[str, Any], list[Row]]:
    """Compare the rule with the double loop, and with every comparison in numpy."""
    rewards = draw_rewards(PROMPTS, 0)
    some, few = rewards[: PROMPTS // 10], rewards[:LOOPED].tolist()
    by_rule = select_pairs(np.array(few), TAU, ETA)
    assert list(zip(*map(np.ndarray.tolist, by_rule), strict=True)) == algorithm_1(few)
    assert all(map(np.array_equal, select_pairs(some, TAU, ETA), every_comparison(some)))
    drawn = facts_of(select_pairs(rewards, TAU, ETA), PROMPTS)
    assert all(math.isclose(drawn[name], PAPER[name], rel_tol=0.03) for name in PAPER), drawn
    ours, looped = take_turns(lambda: select_pairs(rewards, TAU, ETA), lambda: algorithm_1(few), rounds)
    rate, loop_rate = PROMPTS / ours, LOOPED / looped
    turns = take_turns(lambda: select_pairs(some, TAU, ETA), lambda: every_comparison(some), rounds)
    again, plain = (len(some) / seconds for seconds in turns)
    facts = {name: f"{value:.3g} (paper: {PAPER[name]})" for name, value in drawn.items()}
    return {**facts, "the double loop ran on": f"{LOOPED:,} of {PROMPTS:,} prompts"}, [
        Row("selection, the rule against the double loop (prompts/s)", rate, loop_rate, rate / loop_rate, 100),
        Row("selection, the rule against what is asked (prompts/s)", rate, 1e6, rate / 1e6, 1),
        Row("selection, the rule against k x k in numpy (prompts/s)", again, plain, again / plain),
    ]


def texts(number: int, words: int, seed: int) -> pa.Array:
    """Return texts of so many words each, drawn by Zipf's law from random words of 2 to 7 letters."""
    letters, rng = np.random.default_rng(0), np.random.default_rng(seed)
    lengths = letters.integers(2, 8, WORDS)
    vocabulary = pa.array(["".join(map(chr, letters.integers(97, 123, length))) for length in lengths])
    chance = 1 / np.arange(1, WORDS + 1)
    drawn = np.searchsorted(np.cumsum(chance / chance.sum()), rng.random(number * words)).clip(max=WORDS - 1)
    starts = pa.array(np.arange(0, drawn.size + 1, words, dtype=np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(starts, vocabulary.take(pa.array(drawn))), " ")


def part(number: int, completions: pa.Array) -> tuple[pa.Table, pa.Table]:
    """Return PART prompts' completions, of the texts given, and their rewards."""
    ids = pa.array([hashlib.sha256(f"{number}/{i}".encode()).hexdigest() for i in range(PART)])
    keys = {
        "prompt_id": ids.take(pa.array(np.repeat(np.arange(PART), K))),
        "completion_id": np.tile(np.arange(K, dtype=np.int32), PART),
    }
    ones = np.ones(PART * K, np.int32)
    tokens = pa.ListArray.from_arrays(np.arange(PART * K + 1, dtype=np.int32), ones)
    stop = pa.array(["stop"]).take(pa.array(ones - 1))
    own = {"completion": completions, "token_ids": tokens, "num_tokens": ones, "finish_reason": stop}
    rewards = {"reward": draw_rewards(PART, number).ravel().astype(np.float32)}
    return pa.table(keys | own).cast(SCHEMAS["completions"]), pa.table(keys | rewards).cast(SCHEMAS["rewards"])


def table_size() -> tuple[dict[str, Any], list[Row]]:
    """Compare the bytes of pairs of ids with those of pairs of texts."""
    completions = texts(PART * K, COMPLETION_WORDS, 1)
    own, rewards = part(0, completions)
    (pairs,) = pairs_of_parts([(own, rewards)], PairCounts(PairsConfig(tau=TAU, eta=ETA)))
    with tempfile.TemporaryDirectory() as folder:
        write_pairs([pairs], Path(folder))
        stored = sum(path.stat().st_size for path in Path(folder).iterdir())
    row = pc.index_in(pairs["prompt_id"], own["prompt_id"].unique())
    prompts = texts(PART, PROMPT_WORDS, 2)
    written = {"prompt": prompts.take(row)}
    for side in ("chosen", "rejected"):
        written[side] = completions.take(pc.add(pc.multiply(row, K), pairs[f"{side}_id"]))
    sizes = {}
    for name, limit in (("default", None), ("any", 1 << 30)):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(written), sink, compression="zstd", dictionary_pagesize_limit=limit)
        sizes[name] = sink.getvalue().size
    facts = {
        "pairs in the table": pairs.num_rows,
        "bytes a pair": f"{stored / pairs.num_rows:.1f} as ids, {sizes['any'] / pairs.num_rows:.0f} as text "
        f"({sizes['default'] / pairs.num_rows:.0f} where the dictionary stops at Parquet's default of 1 MB)",
    }
    each = stored / pairs.num_rows, sizes["any"] / pairs.num_rows
    return facts, [Row("selection, the pair table against its texts (bytes a pair)", *each, each[1] / each[0], 20)]


def fill(store: Store) -> dict[int, tuple[Artifact, Artifact]]:
    """Write parts for the larger size; return rewards and completions of each size, which share them."""
    slices: dict[str, list[Slice]] = {"completions": [], "rewards": []}
    for number in range(SIZES[-1] // PART):
        drawn = np.random.default_rng(number).integers(0, 2**62, PART * K)
        digest = f"{number + 1:032x}{0:032x}"
        for kind, table in zip(slices, part(number, pa.array(drawn).cast(pa.string())), strict=True):
            # Committed by hand: a table that grows would hash each row, and nothing of the stage reads that digest.
            provenance = Provenance(stage=kind, version=1, key="benchmark")
            manifest = Manifest(kind=kind, digest=digest, rows=PART * K, provenance=provenance)
            files = {"rows.parquet": table_bytes(table, kind)}
            slices[kind].append(Slice(store.commit(f"tables/{kind}/benchmark/{digest[:32]}", files, manifest)))

    def committed(kind: str, size: int) -> Artifact:
        draft = Draft(store, Provenance(stage=kind, version=1, key=f"prompts-{size}"))
        return commit_slices(draft, kind, slices[kind][: size // PART], {})

    return {size: (committed("rewards", size), committed("completions", size)) for size in SIZES}


def run_stage(store: str, size: int, rewards: Artifact, completions: Artifact) -> dict[str, Any]:
    """Run build_pairs in a process of its own; return its peak memory, seconds and artifact."""
    given = json.dumps([store, size, rewards.model_dump(), completions.model_dump()])
    ended = subprocess.run(
        [sys.executable, __file__, "--stage", given], check=True, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    return json.loads(ended.stdout.splitlines()[-1])


def stage(given: str) -> None:
    """Run build_pairs, and print what it took."""
    store, size, rewards, completions = json.loads(given)
    draft = Draft(Store(store), Provenance(stage="build_pairs", version=1, key=f"prompts-{size}"))
    start = time.perf_counter()
    made = build_pairs.body(draft, Artifact(**rewards), Artifact(**completions), PairsConfig(tau=TAU, eta=ETA))
    seconds = time.perf_counter() - start
    (peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(json.dumps({"MB": int(peak) / 1024, "s": seconds, "pairs": made.rows, "prompts": made.stats["prompts"]}))


def memory() -> tuple[dict[str, Any], list[Row]]:
    """Compare the peak memory of the stage at both sizes."""
    with tempfile.TemporaryDirectory(prefix="rs-dpo-benchmark-") as folder:
        inputs = fill(Store(folder))
        took = {size: run_stage(folder, size, *inputs[size]) for size in SIZES}
    assert all(took[size]["prompts"] == size for size in SIZES)
    facts = {
        f"build_pairs, {size:,} prompts": f"{own['pairs']:,} pairs in {own['s']:.1f} s, {own['MB']:.0f} MB at most"
        for size, own in took.items()
    }
    small, large = (took[size]["MB"] for size in SIZES)
    name = f"selection, peak memory at {SIZES[1]:,} prompts against {SIZES[0]:,} (MB)"
    return facts, [Row(name, large, small, small / large, round(1 / 1.2, 3))]


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        stage(given.stage)
        return
    compared = [speed(given.rounds), table_size(), memory()]
    facts = {name: value for found, _ in compared for name, value in found.items()}
    report("Pair selection", facts, [row for _, rows in compared for row in rows], given)


if __name__ == "__main__":
    main()
