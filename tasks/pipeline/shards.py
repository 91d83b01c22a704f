"""Sampling and scoring on several workers: shards of the prompts, each sampled and, as soon as it is, scored.

Completions and rewards are tables that grow, so a shard is no more than some of the prompts. Its workers fill the
tables; the stages that follow find them full. What one shard has committed stays, whatever becomes of the others.
"""

import heapq
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from prefect import task
from prefect.client.schemas.objects import FlowRun

from tasks.config.settings import SamplingConfig, ScoringConfig
from tasks.data.prompt_table import PromptTable
from tasks.lm.tokens import encode_prompt
from tasks.models.loading import model_tokenizer
from tasks.pipeline.dispatch import (
    DeploymentFailedError,
    DeploymentRunError,
    check_ended_well,
    endings,
    start,
    under_way,
)
from tasks.pipeline.dry_run import PLAN
from tasks.pipeline.progress import log
from tasks.pipeline.site import Site
from tasks.pipeline.stage import CRASH_SECONDS, CRASHES, may_pass_next_time
from tasks.rewards.table import rewards_table, unscored
from tasks.sample import sample_completions
from tasks.sampling.completions import completions_table, missing_completions, sample_slices
from tasks.score import score_completions
from tasks.store.artifacts import NOTHING, Artifact
from tasks.store.drafts import Draft, provenance_of
from tasks.store.growing import Slice, commit_slices, groups_of
from tasks.store.parquet import read_table, table_bytes
from tasks.store.schemas import format_digest, rows_digest


class Sharded(NamedTuple):
    """What is sampled and scored."""

    site: Site
    policy: Artifact
    reward_model: Artifact
    """`NOTHING`: sample only."""
    prompts: Artifact
    rows: pa.Table
    """The table of the prompts."""
    sampling: SamplingConfig
    scoring: ScoringConfig


class Step(NamedTuple):
    """A run under way on a shard."""

    run: FlowRun
    shard: Artifact
    scores: bool


def balance(costs: Sequence[float], shards: int) -> list[list[int]]:
    """Return the indices of the costs in at most `shards` groups of like sum, none empty.

    The dearest goes first, each to the group with the least so far: the largest sum is at most 4/3 of the best possible
    (Graham 1969, doi:10.1137/0117039).

    Args:
        costs: Anything additive and positive; here tokens, or rows.
        shards: At least 1.
    """
    groups: list[list[int]] = [[] for _ in range(min(shards, len(costs)))]
    sums = [(0.0, number) for number in range(len(groups))]
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        least, number = heapq.heappop(sums)
        groups[number].append(index)
        heapq.heappush(sums, (least + costs[index], number))
    return groups


def sample_and_score_in_shards(
    site: Site,
    policy: Artifact,
    reward_model: Artifact,
    prompts: Artifact,
    sampling: SamplingConfig,
    scoring: ScoringConfig,
) -> None:
    """Fill the tables of completions and rewards on `compute.shards` workers; with one shard the stages do it.

    Raises:
        DeploymentFailedError: A shard failed; the others have gone on to their ends.
        DeploymentRunError: Runs crashed again and again, or Prefect's server is gone.
    """
    if site.compute.shards > 1 and PLAN.get() is None and prompts:
        _fill(Sharded(site, policy, reward_model, prompts, read_table(prompts), sampling, scoring))


@task(
    name="sample_and_score_in_shards",
    retries=CRASHES,
    retry_delay_seconds=CRASH_SECONDS,
    retry_condition_fn=may_pass_next_time,
    cache_result_in_memory=False,
)
def _fill(what: Sharded) -> None:
    """Start a run a shard, and its scoring once it is sampled; wait for all of them, however some end."""
    # Of another pipeline, or of this one before it was killed. It may start more while we wait.
    while others := [run for lock in _locks(what) for run in under_way(lock)]:
        list(endings(others))
    steps = [*_start_sampling(what), *_start_scoring(what)]
    failed, total = [], len(steps)
    while steps:
        ended = next(endings([step.run for step in steps]))
        step = next(step for step in steps if step.run.id == ended.id)
        steps.remove(step)
        try:
            check_ended_well(ended, committed=True)
            if what.reward_model and not step.scores:
                steps.append(_score(what, step.shard))
        except (DeploymentFailedError, DeploymentRunError) as error:
            failed.append(error)
    if failed:
        how = next((type(error) for error in failed if isinstance(error, DeploymentFailedError)), DeploymentRunError)
        raise how(f"{len(failed)} of {total} shards failed, what they had committed is kept: {failed[0]}")


def _locks(what: Sharded) -> list[str]:
    tables = [completions_table(what.site.store, what.policy, what.sampling)]
    if what.reward_model:
        tables.append(rewards_table(what.site.store, what.reward_model, what.scoring))
    return [table.provenance.key for table in tables]


def _start_sampling(what: Sharded) -> list[Step]:
    """Start the sampling of the prompts that have no completions, in shards of like expected tokens."""
    site, prompts = what.site, PromptTable(what.prompts)
    missing = missing_completions(site.store, what.policy, what.prompts, what.sampling)
    if not missing:
        return []
    tokenizer, longest, ids = model_tokenizer(what.policy), what.sampling.max_new_tokens, list(missing)
    costs = [len(encode_prompt(tokenizer, prompts[id_])) + longest * len(missing[id_]) for id_ in ids]
    groups, completions = balance(costs, site.compute.shards), sum(map(len, missing.values()))
    log(f"sampling {completions} completions of {len(ids)} prompts in {len(groups)} shards")
    site.computed["sample_completions"] = len(ids)
    if what.reward_model:
        site.computed["score_completions"] = completions
    return [_sample(what, _shard(what, [ids[i] for i in group])) for group in groups]


def _start_scoring(what: Sharded) -> list[Step]:
    """Start the scoring of completions that are there already and have no rewards."""
    if not what.reward_model:
        return []
    store = what.site.store
    missing = missing_completions(store, what.policy, what.prompts, what.sampling)
    ids = [prompt_id for prompt_id in what.rows["prompt_id"].to_pylist() if prompt_id not in missing]
    if not ids:
        return []
    slices, _ = sample_slices(store, what.policy, _shard(what, ids), what.sampling)
    left = _unscored(what, slices)
    groups = [(group, sum(left[uri] for uri in {slice_.part.uri for slice_ in group})) for group in groups_of(slices)]
    todo = [(group, rows) for group, rows in groups if rows]
    steps = []
    for chosen in balance([rows for _, rows in todo], what.site.compute.shards):
        own = [slice_ for i in chosen for slice_ in todo[i][0]]
        names = {id_ for slice_ in own for id_ in slice_.read(["prompt_id"])["prompt_id"].unique().to_pylist()}
        shard = _shard(what, sorted(names))
        out = sample_completions.draft(what.site, what.policy, shard, NOTHING, what.sampling)
        commit_slices(out, "completions", own, {"sampled_prompts": 0})
        steps.append(_score(what, shard))
    return steps


def _unscored(what: Sharded, slices: list[Slice]) -> Counter[str]:
    """Return how many completions have no reward, by the part that they are in."""
    left: Counter[str] = Counter()
    for slice_ in unscored(what.site.store, what.reward_model, slices, what.scoring):
        left[slice_.part.uri] += slice_.num_rows()
    return left


def _sample(what: Sharded, shard: Artifact) -> Step:
    order = sample_completions.order(what.site, what.policy, shard, NOTHING, what.sampling)
    return Step(start(order, shard.digest), shard, scores=False)


def _score(what: Sharded, shard: Artifact) -> Step:
    completions = sample_completions.find(what.site, what.policy, shard, NOTHING, what.sampling)
    if completions is None:
        raise DeploymentRunError(f"the completions of {shard.uri} are no longer in the store: run again")
    order = score_completions.order(what.site, what.reward_model, completions, shard, what.scoring)
    return Step(start(order, shard.digest), shard, scores=True)


def _shard(what: Sharded, prompt_ids: list[str]) -> Artifact:
    """Return some of the prompts as an artifact of their own."""
    rows = what.rows.filter(pc.is_in(what.rows["prompt_id"], pa.array(prompt_ids, pa.string())))
    digest = format_digest(rows_digest(rows))
    draft = Draft(what.site.store, provenance_of("shard_prompts", 1, {"prompts": what.prompts, "rows": digest}))
    return draft.commit("prompts", {"rows.parquet": table_bytes(rows, "prompts")}, digest, rows=rows.num_rows)
