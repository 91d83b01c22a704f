"""Sampling and scoring on several workers: shards of the prompts, each sampled and, as soon as it is, scored.

Completions and rewards are tables that grow, so a shard is no more than some of the prompts. Its workers fill the
tables; the stages that follow find them full. What one shard has committed stays, whatever becomes of the others.
"""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from prefect import task
from prefect.client.schemas.objects import FlowRun
from prefect.tasks import exponential_backoff

from tasks.artifacts import NOTHING, Artifact
from tasks.config import SamplingConfig, ScoringConfig
from tasks.dispatch import DeploymentRunError, check_ended_well, endings, start, under_way
from tasks.drafts import Draft, provenance_of
from tasks.models import model_tokenizer
from tasks.parquet import read_table, table_bytes
from tasks.plan import PLAN
from tasks.progress import log
from tasks.prompts import PromptTable
from tasks.sample import completions_table, missing_prompts, sample_completions, sample_slices
from tasks.schemas import format_digest, rows_digest
from tasks.score import rewards_table, score_completions, unscored
from tasks.site import Site
from tasks.stage import may_pass_next_time
from tasks.storage import Store
from tasks.tokens import encode_prompt


class Sharded(NamedTuple):
    """What the shards are sampled and scored with; `NOTHING` in place of a reward model samples only."""

    policy: Artifact
    reward_model: Artifact
    prompts: Artifact
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
    """Fill the tables of completions and rewards on `compute.shards` workers; with one shard the stages do it."""
    if site.compute.shards > 1 and PLAN.get() is None and prompts:
        _fill(site, Sharded(policy, reward_model, prompts, sampling, scoring))


@task(
    name="sample_and_score_in_shards",
    retries=2,
    retry_delay_seconds=exponential_backoff(5),
    retry_condition_fn=may_pass_next_time,
    cache_result_in_memory=False,
)
def _fill(site: Site, what: Sharded) -> None:
    """Start a run a shard, and its scoring when it is sampled; wait for all of them, however some end."""
    for lock in _locks(site.store, what):  # of another pipeline, or of this one before it was killed
        for _ in endings(under_way(lock), site.compute.poll_seconds):
            pass
    steps = [*_start_sampling(site, what), *_start_scoring(site, what)]
    failed, total = [], len(steps)
    while steps:
        ended = next(endings([step.run for step in steps], site.compute.poll_seconds))
        step = next(step for step in steps if step.run.id == ended.id)
        steps.remove(step)
        try:
            check_ended_well(ended, committed=True)
        except (ValueError, DeploymentRunError) as error:
            failed.append(error)
            continue
        if what.reward_model and not step.scores:
            steps.append(_score(site, what, step.shard))
    if failed:
        how = ValueError if any(isinstance(error, ValueError) for error in failed) else DeploymentRunError
        raise how(f"{len(failed)} of {total} shards failed, what they had committed is kept: {failed[0]}")


def _locks(store: Store, what: Sharded) -> list[str]:
    tables = [completions_table(store, what.policy, what.sampling)]
    if what.reward_model:
        tables.append(rewards_table(store, what.reward_model, what.scoring))
    return [table.provenance.key for table in tables]


def _start_sampling(site: Site, what: Sharded) -> list[Step]:
    """Start the sampling of the prompts that have no completions, in shards of like expected tokens."""
    missing, prompts = missing_prompts(site.store, what.policy, what.prompts, what.sampling), PromptTable(what.prompts)
    if not missing:
        return []
    tokenizer, drawn = model_tokenizer(what.policy), what.sampling.k * what.sampling.max_new_tokens
    costs = [len(encode_prompt(tokenizer, prompts[prompt_id])) + drawn for prompt_id in missing]
    groups = balance(costs, site.compute.shards)
    log(f"sampling {len(missing)} prompts x {what.sampling.k} in {len(groups)} shards")
    site.computed["sample_completions"] = len(missing)
    return [_sample(site, what, shard_of(site.store, what.prompts, [missing[i] for i in group])) for group in groups]


def _start_scoring(site: Site, what: Sharded) -> list[Step]:
    """Start the scoring of completions that are there already and have no rewards."""
    if not what.reward_model:
        return []
    missing = set(missing_prompts(site.store, what.policy, what.prompts, what.sampling))
    ids = [prompt_id for prompt_id in PromptTable(what.prompts).ids if prompt_id not in missing]
    if not ids:
        return []
    drawn = shard_of(site.store, what.prompts, ids)
    slices, _ = sample_slices(site.store, what.policy, drawn, what.sampling)
    todo = unscored(site.store, what.reward_model, slices, what.scoring)
    steps = []
    for group in balance([slice_.part.rows for slice_ in todo], site.compute.shards):
        # Whole slices, so that the rewards are found under the same names when all prompts are scored.
        own = [prompt_id for i in group for prompt_id in todo[i].read()["prompt_id"].unique().to_pylist()]
        shard = shard_of(site.store, what.prompts, own)
        sample_completions(Site(site.store), what.policy, shard, NOTHING, what.sampling)
        steps.append(_score(site, what, shard))
    return steps


def _sample(site: Site, what: Sharded, shard: Artifact) -> Step:
    order = sample_completions.order(site, what.policy, shard, NOTHING, what.sampling)
    return Step(start(order, shard.digest), shard, scores=False)


def _score(site: Site, what: Sharded, shard: Artifact) -> Step:
    completions = sample_completions.find(site, what.policy, shard, NOTHING, what.sampling)
    if completions is None:
        raise DeploymentRunError("a shard was sampled, but its completions are not in the store")
    order = score_completions.order(site, what.reward_model, completions, shard, what.scoring)
    return Step(start(order, shard.digest), shard, scores=True)


def shard_of(store: Store, prompts: Artifact, prompt_ids: list[str]) -> Artifact:
    """Return some of the prompts as an artifact of their own."""
    table = read_table(prompts)
    rows = table.filter(pc.is_in(table["prompt_id"], pa.array(prompt_ids, pa.string())))
    digest = format_digest(rows_digest(rows))
    draft = Draft(store, provenance_of("shard_prompts", 1, {"prompts": prompts, "rows": digest}))
    files = {"rows.parquet": table_bytes(rows, "prompts")}
    return draft.find() or draft.commit("prompts", files, digest, rows=rows.num_rows)
