"""Whole runs in a store, made without a model: prompts, completions, rewards, pairs, an evaluation, a record."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.config.evaluation import EvaluationConfig
from tasks.data.records import prompt_id
from tasks.evaluation.comparison import compare
from tasks.evaluation.drawn import Drawn, samples_table
from tasks.pairs import build_pairs
from tasks.selection.strategies import PairsConfig
from tasks.store.artifacts import Artifact, Manifest, Provenance, sha256_of
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes
from tasks.store.runs import Run, RunRecord
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import Slice, commit_slices

WORDS = np.array(["the", "fox", "seal", "harbour", "quietly", "answers", "because", "twelve", "bright", "and", "cold"])
PROMPTS_A_PART = 256
Texts = Callable[[int, int], list[str]]


class Size(NamedTuple):
    prompts: int
    k: int = 4
    words: int = 8
    held_out: int = 3


def conversation(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def draft(store: Store, stage: str, name: str, config: dict[str, Any] | None = None, **inputs: Artifact) -> Draft:
    digests = {role: artifact.digest for role, artifact in inputs.items()}
    key = sha256_of(f"{stage} {name}".encode())
    return Draft(store, Provenance(stage=stage, version=1, key=key, inputs=digests, config=config or {}))


def prompts(store: Store, stage: str, texts: Sequence[str]) -> Artifact:
    """Commit prompts, of two sources in turn."""
    rows = [
        {
            "prompt_id": prompt_id(conversation(text)),
            "messages": conversation(text),
            "source": f"file-{number % 2}.jsonl",
        }
        for number, text in enumerate(texts)
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])
    data = table_bytes(table, "prompts")
    return draft(store, stage, sha256_of(data)).commit(
        "prompts", {"rows.parquet": data}, sha256_of(data), rows=len(rows)
    )


def model(store: Store, stage: str, name: str) -> Artifact:
    data = f"{stage} {name}".encode()
    return draft(store, stage, name).commit("model", {"config.json": data}, sha256_of(data))


def part(store: Store, table: pa.Table, kind: str, name: str) -> Slice:
    """Commit a part; its digest is that of its bytes, which is made faster than that of its rows."""
    data = table_bytes(table, kind)
    provenance = Provenance(stage=kind, version=1, key=sha256_of(kind.encode()))
    manifest = Manifest(kind=kind, digest=sha256_of(data), rows=table.num_rows, provenance=provenance)
    return Slice(store.commit(f"tables/{kind}/{provenance.key}/{name}", {"rows.parquet": data}, manifest))


def completions_table(ids: Sequence[str], texts: list[str], cut: np.ndarray, seed: int) -> pa.Table:
    """Return completions: len(texts) / len(ids) of each prompt; a token is a word."""
    k, random = len(texts) // len(ids), np.random.default_rng(seed)
    lengths = [max(1, min(400, text.count(" ") + 1)) for text in texts]
    tokens = pa.array(random.integers(0, 32_000, sum(lengths)).astype(np.int32))
    columns = {
        "prompt_id": np.repeat(np.array(ids), k),
        "completion_id": np.tile(np.arange(k, dtype=np.int32), len(ids)),
        "completion": texts,
        "token_ids": pa.ListArray.from_arrays(np.r_[0, np.cumsum(lengths)].astype(np.int32), tokens),
        "num_tokens": lengths,
        "finish_reason": np.where(cut, "length", "stop"),
    }
    return pa.table(columns).cast(SCHEMAS["completions"])


def random_texts(words: int) -> Texts:
    """Return texts of so many words from a small vocabulary."""

    def texts(number: int, seed: int) -> list[str]:
        drawn = np.random.default_rng(seed).integers(0, len(WORDS), (number, words))
        return [" ".join(line) for line in WORDS[drawn]]

    return texts


def drawn_and_scored(
    store: Store, policy: Artifact, judge: Artifact, ids: Sequence[str], size: Size, texts: Texts
) -> tuple[Artifact, Artifact]:
    """Commit completions and their rewards, part by part; one completion in fifty is truncated."""
    drawn, scored = [], []
    for start in range(0, len(ids), PROMPTS_A_PART):
        some, random = ids[start : start + PROMPTS_A_PART], np.random.default_rng(start)
        rows = len(some) * size.k
        table = completions_table(some, texts(rows, start), random.random(rows) < 0.02, start)
        drawn.append(part(store, table, "completions", f"{policy.digest[:8]}-{start:07}"))
        rewards = np.repeat(random.normal(size=len(some)), size.k) + random.normal(size=rows)
        named = pa.table({"prompt_id": table["prompt_id"], "completion_id": table["completion_id"], "reward": rewards})
        scored.append(part(store, named.cast(SCHEMAS["rewards"]), "rewards", drawn[-1].part.digest[:32]))
    out = draft(store, "sample_completions", policy.digest, {"sampling": {"k": size.k}}, policy=policy)
    completions = commit_slices(out, "completions", drawn, {})
    out = draft(store, "score_completions", policy.digest, reward_model=judge, completions=completions)
    return completions, commit_slices(out, "rewards", scored, {"reward_mean": 0.0})


def evaluation(store: Store, held_out: Artifact, ids: Sequence[str], size: Size, texts: Texts) -> Artifact:
    """Commit an evaluation of two policies by two rewards; the aligned one gets one more."""
    policies = {}
    rows = len(ids) * size.k
    for number, name in enumerate(("sft", "aligned")):
        table = completions_table(ids, texts(rows, 7 + number), np.zeros(rows, bool), number)
        rewards = np.random.default_rng(number).normal(size=rows) + number
        policies[name] = Drawn(table, {"gold": rewards, "reward_model": rewards / 2}, {})
    stats = compare(policies, "sft", EvaluationConfig(k=size.k, bootstrap_samples=100))
    for own in stats.values():
        own["reference_nll"] = 1.0
    stats = {"prompts": len(ids), "reference": "sft", "policies": stats}
    samples = table_bytes(samples_table(policies), "evaluation")
    out = draft(store, "evaluate_policy", sha256_of(samples), prompts=held_out)
    return out.commit("evaluation", {"samples.parquet": samples}, sha256_of(samples), rows=2 * 2 * rows, stats=stats)


def write_run(
    store: Store,
    size: Size,
    name: str = "run",
    questions: Sequence[str] = (),
    texts: Texts | None = None,
    pairs: PairsConfig = PairsConfig(),
) -> tuple[Run, dict[str, Artifact]]:
    """Write a finished run, and return its record and artifacts.

    Args:
        store: Where.
        size: How much of it.
        name: Tells its policy and reward model from those of other runs.
        questions: The prompts; made up where there are none.
        texts: Returns so many completions for a seed.
        pairs: How pairs are selected.
    """
    texts = texts or random_texts(size.words)
    questions = questions or [f"Question {number}: what does the fox say?" for number in range(size.prompts)]
    made = {"prompts": prompts(store, "load_prompts", questions)}
    made["policy"], made["reward_model"] = model(store, "train_sft", name), model(store, "train_reward_model", name)
    ids = [prompt_id(conversation(text)) for text in questions]
    made["completions"], made["rewards"] = drawn_and_scored(
        store, made["policy"], made["reward_model"], ids, size, texts
    )
    config = {"pairs": pairs.model_dump(mode="json")}
    inputs = {role: made[role] for role in ("rewards", "completions")}
    made["pairs"] = build_pairs.body(draft(store, "build_pairs", name, config, **inputs), *inputs.values(), pairs)
    asked = [f"Held-out question {number}?" for number in range(size.held_out)]
    made["held_out"] = prompts(store, "load_held_out", asked)
    held_out = [prompt_id(conversation(text)) for text in asked]
    made["evaluation"] = evaluation(store, made["held_out"], held_out, size, random_texts(size.words))
    record = RunRecord.begin(store)
    for artifact in made.values():
        record.note(store.folder_of(artifact))
    record.finish(made)
    return record.run, made
