"""Compare the stage `sample_completions` with bare vLLM: seconds for the same k completions of the same prompts.

Ours is the stage's whole path: prompts read from a store and tokenized, drawn, and written as parts into a local store,
each with its hashes and its manifest. The other side is one call of vLLM's `LLM.generate` with the token ids, seeds and
parameters of the same requests, all at once and in the same order, which keeps nothing. One engine, open throughout,
serves both; its prefix cache is emptied before each turn. How many of their completions are
equal, token by token, is among the facts.

    python benchmarks/sampling.py [--device cpu|cuda] [--model M] [--rounds 3]
"""

import itertools
import random
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from _side_by_side import faster, options, parse, report, take_turns

import tasks.sampling.completions
from tasks.config.sections import ModelSource
from tasks.config.settings import Decoding
from tasks.data.prompt_table import PromptTable
from tasks.data.records import prompt_id
from tasks.examples.world import world_files, write_base_model
from tasks.lm.tokens import encode_prompt, load_tokenizer
from tasks.models.locate import locate_model
from tasks.sampling.completions import sample_slices
from tasks.sampling.drawing import prompt_seed
from tasks.sampling.vllm_engine import VllmEngine
from tasks.store.artifacts import Artifact, Manifest, Provenance
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest
from tasks.store.slices import Slice

SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "cpu": (64, {"max_new_tokens": 24, "part_size": 8}),
    "cuda": (4096, {"max_new_tokens": 256, "part_size": 64, "dtype": "bfloat16"}),
}
"""Prompts and settings by device."""


class OpenEngine(VllmEngine):
    """vLLM that stays open when a stage is done with it."""

    def close(self) -> None:
        """Keep it for the next turn."""

    def stop(self) -> None:
        """Close it in truth."""
        super().close()


def commit_prompts(store: Store, number: int) -> Artifact:
    """Commit so many prompts, each of 1 to 12 questions of the quickstart's world."""
    rng = random.Random(0)
    questions = [row["prompt"] for row in world_files(seed=0, scale=0.1)["prompts.jsonl"]]
    texts = [f"{n}. {' '.join(rng.choices(questions, k=rng.randint(1, 12)))}" for n in range(number)]
    messages = [[{"role": "user", "content": text}] for text in texts]
    rows = [{"prompt_id": prompt_id(each), "messages": each, "source": "world"} for each in messages]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])
    provenance = Provenance(stage="benchmark", version=1, key="0" * 64)
    manifest = Manifest(kind="prompts", digest=format_digest(rows_digest(table)), rows=number, provenance=provenance)
    return store.commit("benchmark/prompts", {"rows.parquet": table_bytes(table, "prompts")}, manifest)


def requests_of(policy: Artifact, prompts: Artifact, seed: int) -> dict[str, tuple[list[int], int]]:
    """Return the token ids and the seed that the stage draws each prompt with, in its order."""
    tokenizer, table = load_tokenizer(Path(policy.uri)), PromptTable(prompts)
    found = {id_: (encode_prompt(tokenizer, table[id_]), prompt_seed(seed, id_)) for id_ in table.ids}
    return {id_: found[id_] for id_ in sorted(found, key=lambda id_: (-len(found[id_][0]), id_))}


def draw_bare(engine: OpenEngine, requests: Iterable[tuple[list[int], int]]) -> list[list[list[int]]]:
    """Draw with vLLM alone; return the token ids of every prompt's completions."""
    from vllm import SamplingParams, TokensPrompt

    ids, seeds = zip(*requests, strict=True)
    k, most = engine.decoding.k, engine.decoding.max_new_tokens
    parameters = [SamplingParams(n=k, temperature=1.0, max_tokens=most, seed=seed) for seed in seeds]
    engine.llm.reset_prefix_cache()
    outputs = engine.llm.generate([TokensPrompt(prompt_token_ids=each) for each in ids], parameters, use_tqdm=False)
    return [[list(output.token_ids) for output in request.outputs] for request in outputs]


def draw_ours(engine: OpenEngine, policy: Artifact, prompts: Artifact, store: Store) -> list[Slice]:
    """Draw with the stage, into a store."""
    engine.llm.reset_prefix_cache()
    return sample_slices(store, policy, prompts, engine.decoding)[0]


def main() -> None:
    """Run both sides in turn and report."""
    chosen = parse(options(__doc__, rounds=3))
    number, settings = SETTINGS[chosen.device]
    decoding = Decoding(k=16, engine="vllm", **settings)
    with tempfile.TemporaryDirectory() as folder:
        if chosen.model is None:
            write_base_model(Path(folder) / "model", seed=0)
        model = locate_model(ModelSource(path=chosen.model or f"{folder}/model"))
        policy = Artifact(kind="model", uri=str(model), digest="0" * 64)
        prompts = commit_prompts(Store(f"{folder}/prompts"), number)
        requests = requests_of(policy, prompts, decoding.seed)
        longest = max(len(ids) for ids, _ in requests.values())
        engine = OpenEngine(model, decoding, longest + decoding.max_new_tokens, False)
        tasks.sampling.completions.open_engine = lambda *_: engine

        stores = (Store(f"{folder}/{turn}") for turn in itertools.count())
        ours, bare = draw_ours(engine, policy, prompts, next(stores)), draw_bare(engine, requests.values())  # and warm
        rows = [row for slice_ in ours for row in slice_.read().to_pylist()]
        drawn = {(row["prompt_id"], row["completion_id"]): row["token_ids"] for row in rows}
        other = {(id_, n): ids for id_, all_ in zip(requests, bare, strict=True) for n, ids in enumerate(all_)}
        seconds = take_turns(
            lambda: draw_ours(engine, policy, prompts, next(stores)),
            lambda: draw_bare(engine, requests.values()),
            chosen.rounds,
        )
        engine.stop()
    tokens, equal = sum(map(len, drawn.values())), sum(drawn[key] == ids for key, ids in other.items())
    facts = {
        "completions": f"{len(drawn)} of {number} prompts of at most {longest} tokens, in {len(ours)} parts",
        "completions that are equal on both sides": f"{equal} of {len(other)}",
        "tokens a completion": f"{tokens / len(drawn):.1f}",
        "tokens a second": f"{tokens / seconds[0]:.0f} (ours), {tokens / seconds[1]:.0f} (bare)",
        "sequences at once": engine.capacity * decoding.k,
    }
    report("Sampling", facts, [faster("sample_completions against bare vLLM", seconds, at_least=0.9)], chosen)


if __name__ == "__main__":
    main()
