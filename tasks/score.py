"""Scoring: reads completions, writes one reward a completion: of a reward model, of a function, or of a judge.

A reward model computes each prompt once for all of its completions. A completion is scored once by each reward, ever.
"""

from collections import Counter
from typing import Any

import numpy as np

from tasks.config.rewards import CALLED
from tasks.config.settings import ScoringConfig
from tasks.data.prompt_table import shard_of
from tasks.pipeline.dry_run import pending
from tasks.pipeline.options import Work
from tasks.pipeline.progress import log
from tasks.pipeline.shards import balance
from tasks.pipeline.stage import stage
from tasks.rewards.scoring import score_slices
from tasks.rewards.stats import reward_stats
from tasks.rewards.table import count_unscored, rewards_table, unscored
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft, provenance_of
from tasks.store.folders import Store
from tasks.store.slices import column_pieces, commit_slices, groups_of, read_slices


def _preview(
    store: Store, reward_model: Artifact, completions: Artifact, scoring: ScoringConfig
) -> tuple[Artifact, dict[str, Any]]:
    missing = completions.rows
    if completions.digest and reward_model.digest:
        missing = count_unscored(store, reward_model, read_slices(store, completions), scoring)
    return pending(completions.rows, "score_completions"), {"completions": missing}


def _work(store: Store, reward_model: Artifact, completions: Artifact, scoring: ScoringConfig) -> Work:
    table = rewards_table(store, reward_model, scoring)
    return Work(
        table.provenance.key, lambda: count_unscored(store, reward_model, read_slices(store, completions), scoring)
    )


def _split(
    store: Store,
    reward_model: Artifact,
    completions: Artifact,
    prompts: Artifact,
    scoring: ScoringConfig,
    shards: int,
) -> list[dict[str, Artifact]]:
    """Return shards of the completions that have no reward, of like number, and their prompts."""
    slices = read_slices(store, completions)
    missing: Counter[str] = Counter()  # by part
    for slice_ in unscored(store, reward_model, slices, scoring):
        missing[slice_.part.uri] += slice_.num_rows()
    parts = [(group, {slice_.part.uri for slice_ in group}) for group in groups_of(slices)]
    todo = [(group, rows) for group, uris in parts if (rows := sum(missing[uri] for uri in uris))]
    parted = []
    for numbers in balance([rows for _, rows in todo], shards):
        own = [slice_ for number in numbers for slice_ in todo[number][0]]
        ids = {id_ for slice_ in own for id_ in slice_.read(["prompt_id"])["prompt_id"].unique().to_pylist()}
        shard = {"completions": completions, "prompts": shard_of(store, prompts, ids)}
        draft = Draft(store, provenance_of("shard_completions", 1, shard))
        parted.append(shard | {"completions": commit_slices(draft, "completions", own, {})})
    return parted


def _is_called(reward_model: Artifact) -> bool:
    """Tell whether the reward needs no GPU, so that it is computed where the flow runs."""
    return reward_model.kind in CALLED


@stage(
    version=4,
    preview=_preview,
    here=_is_called,
    work=_work,
    split=_split,
    run_name="scoring {completions.rows} completions",
    retries=2,
)
def score_completions(
    out: Draft, reward_model: Artifact, completions: Artifact, prompts: Artifact, scoring: ScoringConfig
) -> Artifact:
    """Score every completion with a reward model, a function or a judge: r_j = r(x, y_j)."""
    slices, scored = score_slices(out.store, reward_model, read_slices(out.store, completions), prompts, scoring)
    rewards = np.concatenate([rows["reward"].to_numpy() for rows in column_pieces(slices, ["reward"])])
    unread = int(np.isnan(rewards).sum())
    if unread and reward_model.kind not in CALLED:
        log(
            f"{unread} of {rewards.size} completions have no reward and are in no pair: with their prompts they are "
            "longer than the reward model's context. Lower sampling.max_new_tokens to have none"
        )
    why = "failed" if reward_model.kind in CALLED else "too_long"
    stats = {"scored": scored, why: unread, **reward_stats(rewards[~np.isnan(rewards)])}
    return commit_slices(out, "rewards", slices, stats)
