"""Sampling: reads prompts, writes k completions a prompt, part by part, and only those that are missing."""

from typing import Any

from tasks.config.settings import SamplingConfig
from tasks.pipeline.dry_run import pending
from tasks.pipeline.stage import Work, stage
from tasks.sampling.completions import completion_stats, completions_table, missing_completions, sample_slices
from tasks.store.artifacts import NOTHING, Artifact
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.growing import commit_slices


def _preview(
    draft: Draft, policy: Artifact, prompts: Artifact, annotated: Artifact, sampling: SamplingConfig
) -> tuple[Artifact, dict[str, Any]]:
    if policy.digest:
        missing = missing_completions(draft.store, policy, prompts, sampling)
        asked, completions = len(missing), sum(map(len, missing.values()))
    else:
        asked, completions = prompts.rows, prompts.rows * sampling.k
    cost = {"prompts": asked, "completions": completions, "at most tokens": completions * sampling.max_new_tokens}
    return pending(prompts.rows * sampling.k, "sample_completions"), cost


def _work(store: Store, policy: Artifact, prompts: Artifact, annotated: Artifact, sampling: SamplingConfig) -> Work:
    table = completions_table(store, policy, sampling)
    return Work(table.provenance.key, lambda: len(missing_completions(store, policy, prompts, sampling)))


@stage(
    version=3,
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
    return commit_slices(out, "completions", slices, {"sampled_prompts": sampled, **completion_stats(slices)})
