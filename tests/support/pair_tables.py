"""Small tables of prompts, completions and pairs of them, as the stages store them."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from random_groups import neox, tokenizer

from tasks.store.artifacts import Artifact, Provenance, files_digest
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest
from tasks.store.slices import Slice, commit_slices

NAMES = ("a", "b", "c")
PROMPTS = {"a": "w5 w6", "b": "w7", "c": "w8 w9 w10"}
TOKENS = {
    "a": [[11, 0], [12, 13, 0], [11, 0], [14, 0]],
    "b": [[20, 21, 22, 0], [23, 0]],
    "c": [[30, 0], [31, 0], [32, 0]],
}
PAIRS = [("a", 1, 0), ("a", 1, 2), ("a", 0, 3), ("b", 1, 0)]


def draft(store: Store, stage: str) -> Draft:
    return Draft(store, Provenance(stage=stage, version=1, key=stage))


def commit(store: Store, kind: str, rows: list[dict]) -> Artifact:
    table = pa.Table.from_pylist(rows, SCHEMAS[kind])
    digest = format_digest(rows_digest(table))
    return draft(store, kind).commit(kind, {"rows.parquet": table_bytes(table, kind)}, digest, rows=len(rows))


def prompts_of(store: Store) -> Artifact:
    texts = {name: [{"role": "user", "content": text}] for name, text in PROMPTS.items()}
    return commit(store, "prompts", [{"prompt_id": n, "messages": m, "source": "test"} for n, m in texts.items()])


def pairs_of(store: Store, pairs: Sequence[tuple[str, int, int]], gap_of=lambda chosen, rejected: 1.0) -> Artifact:
    rest = {"chosen_reward": 1.0, "rejected_reward": 0.0, "preference_prob": 0.7}
    rows = [{"prompt_id": n, "chosen_id": c, "rejected_id": r, "reward_gap": gap_of(c, r)} | rest for n, c, r in pairs]
    return commit(store, "pairs", rows)


def completions_of(store: Store, parts: list[list[str]], tokens: dict = TOKENS) -> Artifact:
    """Commit completions in parts of some prompts each."""
    table = GrowingTable(store, "completions", Provenance(stage="completions", version=1, key="t"))
    slices = []
    for number, names in enumerate(parts):
        rows = [
            {"prompt_id": n, "completion_id": i, "completion": "", "token_ids": ids, "num_tokens": len(ids)}
            for n in names
            for i, ids in enumerate(tokens[n])
        ]
        rows = [row | {"finish_reason": "stop"} for row in rows]
        slices.append(Slice(table.append(f"{number}", pa.Table.from_pylist(rows, SCHEMAS["completions"]))))
    return commit_slices(draft(store, "completions"), "completions", slices, {})


def tiny_policy(store: Store, folder: Path) -> Artifact:
    """Save a random model of a few thousand parameters and commit it."""
    neox().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    files = {path.name: path for path in folder.iterdir()}
    return draft(store, "policy").commit("model", files, files_digest(files))
