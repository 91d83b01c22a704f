"""Sampling: reads prompts, writes k completions a prompt, part by part, the missing ones alone."""

from typing import Any

from tasks.config.settings import SamplingConfig
from tasks.data.prompt_table import PromptTable, shard_of
from tasks.lm.tokens import encode_prompt
from tasks.models.loading import model_tokenizer
from tasks.pipeline.dry_run import pending
from tasks.pipeline.options import Work
from tasks.pipeline.shards import balance
from tasks.pipeline.stage import stage
from tasks.sampling.completions import completion_stats, completions_table, missing_completions, sample_slices
from tasks.sampling.last_list import note_last
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.slices import commit_slices


def _preview(
    store: Store, policy: Artifact, prompts: Artifact, sampling: SamplingConfig
) -> tuple[Artifact, dict[str, Any]]:
    if policy.digest:
        missing = missing_completions(store, policy, prompts, sampling)
        asked, completions = len(missing), sum(map(len, missing.values()))
    else:
        asked, completions = prompts.rows, prompts.rows * sampling.k
    cost = {"prompts": asked, "completions": completions, "at most tokens": completions * sampling.max_new_tokens}
    return pending(prompts.rows * sampling.k, "sample_completions"), cost


def _work(store: Store, policy: Artifact, prompts: Artifact, sampling: SamplingConfig) -> Work:
    table = completions_table(store, policy, sampling)
    return Work(table.provenance.key, lambda: len(missing_completions(store, policy, prompts, sampling)))


def _split(
    store: Store, policy: Artifact, prompts: Artifact, sampling: SamplingConfig, shards: int
) -> list[dict[str, Artifact]]:
    """Return shards of the prompts whose completions are missing, of like expected tokens."""
    missing = missing_completions(store, policy, prompts, sampling)
    table = PromptTable(prompts, only=missing)
    tokenizer, longest, ids = model_tokenizer(policy), sampling.max_new_tokens, list(missing)
    costs = [len(encode_prompt(tokenizer, table[id_])) + longest * len(missing[id_]) for id_ in ids]
    return [{"prompts": shard_of(store, prompts, [ids[i] for i in own])} for own in balance(costs, shards)]


@stage(
    version=3,
    preview=_preview,
    work=_work,
    split=_split,
    gpus="sampling",
    run_name="sampling {prompts.rows} prompts x {sampling.k}",
    retries=2,
    dropped=["annotated"],
)
def sample_completions(out: Draft, policy: Artifact, prompts: Artifact, sampling: SamplingConfig) -> Artifact:
    """Draw k completions a prompt: y_1 .. y_k ~ pi_SFT(. | x)."""
    slices, sampled = sample_slices(out.store, policy, prompts, sampling)
    stats = {"sampled_prompts": sampled, **completion_stats(slices)}
    completions = commit_slices(out, "completions", slices, stats)
    note_last(completions_table(out.store, policy, sampling), out.folder, prompts, sampling.k)
    return completions
