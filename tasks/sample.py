"""Sampling: reads prompts, writes k completions a prompt, part by part, and only those that are missing."""

import hashlib
from typing import Any

import pyarrow as pa

from tasks.artifacts import NOTHING, Artifact, Provenance
from tasks.config import Decoding, SamplingConfig
from tasks.drafts import Draft, stage_key
from tasks.engines import Engine, Sample, open_engine
from tasks.models import model_folder, trusts_remote_code
from tasks.plan import pending
from tasks.progress import Progress, log
from tasks.prompts import PromptTable
from tasks.schemas import SCHEMAS
from tasks.stage import Work, stage
from tasks.storage import Store
from tasks.tables import GrowingTable, Slice, commit_slices, part_name, select_slices
from tasks.tokens import context_length, encode_prompt, load_tokenizer

TABLE_VERSION = 1


def prompt_seed(seed: int, prompt_id: str) -> int:
    """Return the seed of a prompt: 62 bits of a hash, so that nothing else decides what is drawn for it."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{prompt_id}".encode()).digest()[:8], "big") >> 2


def completion_rows(prompt_id: str, samples: list[Sample]) -> list[dict[str, Any]]:
    """Return the rows of one prompt's completions."""
    return [
        {
            "prompt_id": prompt_id,
            "completion_id": number,
            "completion": sample.completion,
            "token_ids": sample.token_ids,
            "num_tokens": len(sample.token_ids),
            "finish_reason": sample.finish_reason,
        }
        for number, sample in enumerate(samples)
    ]


def completions_table(store: Store, policy: Artifact, decoding: Decoding) -> GrowingTable:
    """Return the table that holds every completion of a policy under some settings, whatever run drew it."""
    key = stage_key("completions", TABLE_VERSION, decoding.key_fields(), {"policy": policy.digest})
    config = {"decoding": decoding.model_dump(mode="json")}
    inputs = {"policy": policy.digest}
    provenance = Provenance(stage="completions", version=TABLE_VERSION, key=key, inputs=inputs, config=config)
    return GrowingTable(store, "completions", provenance)


def missing_prompts(store: Store, policy: Artifact, prompts: Artifact, decoding: Decoding) -> list[str]:
    """Return the prompts that have no completions of this policy under these settings."""
    wanted = PromptTable(prompts).ids
    missing = select_slices(completions_table(store, policy, decoding).parts(), set(wanted))[1]
    return [prompt_id for prompt_id in wanted if prompt_id in missing]


def sample_slices(store: Store, policy: Artifact, prompts: Artifact, decoding: Decoding) -> tuple[list[Slice], int]:
    """Return the slices with the prompts' completions, and how many prompts had to be sampled for them.

    A part is committed as soon as it is drawn. The prompts of a part are drawn together and in order, so that a run
    that was killed and started again draws what an undisturbed one does.
    """
    table, wanted = completions_table(store, policy, decoding), PromptTable(prompts)
    slices, missing = select_slices(table.parts(), set(wanted.ids))
    todo = [prompt_id for prompt_id in wanted.ids if prompt_id in missing]
    if todo:
        slices += _draw(table, policy, wanted, todo, decoding)
    return sorted(slices, key=lambda slice_: slice_.part.uri), len(todo)


def _draw(
    table: GrowingTable, policy: Artifact, prompts: PromptTable, todo: list[str], decoding: Decoding
) -> list[Slice]:
    folder = model_folder(policy)
    trust = trusts_remote_code(policy)
    tokenizer = load_tokenizer(folder, trust)
    ids = {prompt_id: encode_prompt(tokenizer, prompts[prompt_id]) for prompt_id in todo}
    longest = max(map(len, ids.values())) + decoding.max_new_tokens
    engine = open_engine(folder, decoding, min(longest, context_length(folder)), trust)
    log(f"sampling {len(todo)} prompts x {decoding.k} with {engine.name}")
    progress, slices = Progress("sampling prompts", len(todo)), []
    try:
        for start in range(0, len(todo), decoding.part_size):
            chunk = {prompt_id: ids[prompt_id] for prompt_id in todo[start : start + decoding.part_size]}
            slices.append(Slice(_draw_part(table, engine, chunk, decoding)))
            progress.move_to(start + len(chunk))
    finally:
        engine.close()
    progress.close()
    return slices


def _draw_part(table: GrowingTable, engine: Engine, prompts: dict[str, list[int]], decoding: Decoding) -> Artifact:
    seeds = [prompt_seed(decoding.seed, prompt_id) for prompt_id in prompts]
    drawn = engine.generate(list(prompts.values()), seeds)
    rows = [
        row for prompt_id, samples in zip(prompts, drawn, strict=True) for row in completion_rows(prompt_id, samples)
    ]
    name = part_name(list(prompts))
    return table.append(name, pa.Table.from_pylist(rows, schema=SCHEMAS["completions"]), engine=engine.name)


def _preview(
    draft: Draft, policy: Artifact, prompts: Artifact, annotated: Artifact, sampling: SamplingConfig
) -> tuple[Artifact, dict[str, Any]]:
    missing = len(missing_prompts(draft.store, policy, prompts, sampling)) if policy.digest else prompts.rows
    completions = missing * sampling.k
    cost = {"prompts": missing, "completions": completions, "at most tokens": completions * sampling.max_new_tokens}
    return pending(prompts.rows * sampling.k, "sample_completions"), cost


def _work(store: Store, policy: Artifact, prompts: Artifact, annotated: Artifact, sampling: SamplingConfig) -> Work:
    table = completions_table(store, policy, sampling)
    return Work(table.provenance.key, lambda: len(missing_prompts(store, policy, prompts, sampling)))


@stage(
    version=1,
    preview=_preview,
    work=_work,
    retries=2,
    ready=lambda policy, prompts, annotated, sampling: None if annotated == NOTHING else annotated,
)
def sample_completions(
    out: Draft, policy: Artifact, prompts: Artifact, annotated: Artifact, sampling: SamplingConfig
) -> Artifact:
    """Draw k completions a prompt: y_1 .. y_k ~ pi_SFT(. | x); annotated ones take their place where there are any."""
    slices, sampled = sample_slices(out.store, policy, prompts, sampling)
    return commit_slices(out, "completions", slices, {"sampled_prompts": sampled, **describe(slices)})


def describe(slices: list[Slice]) -> dict[str, Any]:
    """Return counts, lengths and how many completions were cut at max_new_tokens."""
    completions = tokens = cut = 0
    for slice_ in slices:
        table = slice_.read()
        completions += table.num_rows
        tokens += sum(table["num_tokens"].to_pylist())
        cut += table["finish_reason"].to_pylist().count("length")
    return {
        "completions": completions,
        "tokens": tokens,
        "mean_tokens": tokens / completions,
        "truncation_rate": cut / completions,
    }
