"""Pair selection: reads rewards and completions part by part, writes pairs of completion ids.

RS-DPO (arXiv:2402.10038, Algorithm 1) keeps every ordered pair of one prompt whose Bradley-Terry probability
sigma((r_j - r_l) / tau) is above eta, that is, whose reward gap r_j - r_l is above tau * log(eta / (1 - eta)).
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.config.errors import ConfigurationError
from tasks.config.settings import PairsConfig
from tasks.pipeline.dry_run import pending
from tasks.pipeline.stage import stage
from tasks.rewards.scored import read_scored
from tasks.selection.candidates import COLUMNS, Candidates, gather
from tasks.selection.caps import prompt_seeds, random_subset, widest
from tasks.selection.counts import PairCounts
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS, add_digests, format_digest, rows_digest
from tasks.store.scratch import scratch_folder

BLOCK = 1 << 20
"""Most comparisons made at once: bounds their memory."""
FILE_ROWS = 1 << 17
"""Pairs a file, about 2 MB: parts of a few prompts would make files that are mostly header."""


class PairIndices(NamedTuple):
    """Selected pairs: three int arrays of one length, ordered by row, then chosen, then rejected."""

    row: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray

    def where(self, keep: np.ndarray) -> "PairIndices":
        """Return the pairs that a mask or an index array picks."""
        return PairIndices(self.row[keep], self.chosen[keep], self.rejected[keep])


def preference_prob(reward_gap: np.ndarray, tau: float) -> np.ndarray:
    """Return the Bradley-Terry probability sigma(reward_gap / tau) that the first completion is preferred.

    Args:
        reward_gap: Reward differences r_j - r_l, any shape.
        tau: Temperature in units of reward, > 0 (arXiv:2402.10038).

    Raises:
        ConfigurationError: tau is not positive.
    """
    _check(tau, 0.5)
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(reward_gap, np.float64) / tau))


def gap_threshold(tau: float, eta: float) -> float:
    """Return tau * log(eta / (1 - eta)), the reward gap above which a pair is kept, in units of reward.

    Raises:
        ConfigurationError: tau is not positive, or eta is not in [0.5, 1).
    """
    _check(tau, eta)
    return tau * math.log(eta / (1.0 - eta))


def select_pairs(rewards: np.ndarray, tau: float, eta: float) -> PairIndices:
    """Return every pair whose reward gap r_j - r_l is strictly above tau * log(eta / (1 - eta)).

    Args:
        rewards: (n, k) rewards of k completions of n prompts; NaN marks a missing sample.
        tau: Temperature in units of reward, > 0.
        eta: Threshold on the preference probability, 0.5 <= eta < 1.

    Returns:
        `(row, chosen, rejected)`: int arrays with one entry a pair, indices into `rewards`.

    Raises:
        ValueError: tau or eta is out of bounds, or rewards is not two-dimensional.
    """
    threshold = gap_threshold(tau, eta)
    rewards = _matrix(rewards)
    if rewards.shape[1] < 2:
        return _no_pairs()
    found = [_no_pairs()]
    step = max(1, BLOCK // rewards.shape[1] ** 2)
    for start in range(0, rewards.shape[0], step):
        row, chosen, rejected = _pairs_above(rewards[start : start + step], threshold)
        found.append(PairIndices(start + row, chosen, rejected))
    return PairIndices(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _pairs_above(rewards: np.ndarray, threshold: float) -> PairIndices:
    """Return the pairs of a block of prompts, comparing only what can be chosen: what beats its prompt's lowest reward.

    Places in the flattened (n, k) arrays, place // k being the row, are found faster than pairs of indices.
    """
    k = rewards.shape[1]
    columns = np.ascontiguousarray(rewards.T)  # a few long rows are reduced faster than many short ones
    low, high = np.fmin.reduce(columns), np.fmax.reduce(columns)
    with np.errstate(invalid="ignore"):  # inf - inf
        active = np.flatnonzero(high - low > threshold)
        rewards = rewards[active]
        above_low = np.flatnonzero(rewards - low[active, None] > threshold)
        pair = np.flatnonzero(rewards.ravel()[above_low, None] - rewards[above_low // k] > threshold)
    chosen, rejected = above_low[pair // k], pair % k
    return PairIndices(active[chosen // k], chosen % k, rejected)


def best_against_worst(chosen_rewards: np.ndarray, rejected_rewards: np.ndarray) -> PairIndices:
    """Return one pair a row: the highest of `chosen_rewards` over the lowest of `rejected_rewards`, where it is higher.

    Args:
        chosen_rewards: (n, k) rewards of the completions that may be chosen; NaN marks the others.
        rejected_rewards: (n, k) rewards of the completions that may be rejected; NaN marks the others.
    """
    best = np.where(np.isnan(chosen_rewards), -np.inf, chosen_rewards)
    worst = np.where(np.isnan(rejected_rewards), np.inf, rejected_rewards)
    rows = np.arange(best.shape[0])
    chosen, rejected = best.argmax(axis=1), worst.argmin(axis=1)
    return PairIndices(rows, chosen, rejected).where(best[rows, chosen] > worst[rows, rejected])


def annotated_pairs(rewards: np.ndarray) -> PairIndices:
    """Return the data set's own pairs: completion 2i is chosen over completion 2i + 1, whatever their rewards."""
    row, chosen = np.nonzero(~np.isnan(rewards[:, 0::2]))
    return PairIndices(row, 2 * chosen, 2 * chosen + 1)


def select(candidates: Candidates, config: PairsConfig) -> PairIndices:
    """Return the pairs that the configured strategy, truncation rule and cap leave."""
    rewards, cut = candidates.rewards, candidates.truncated
    if config.truncated == "drop" and config.strategy != "annotation":
        rewards = np.where(cut, np.nan, rewards)
    may_be_chosen = np.where(cut, np.nan, rewards) if config.truncated == "never_chosen" else rewards
    if config.strategy == "annotation":
        found = annotated_pairs(np.where(candidates.texts < 0, np.nan, 0.0))
    elif config.strategy == "best_vs_worst":
        found = best_against_worst(may_be_chosen, rewards)
    else:
        found = select_pairs(rewards, config.tau, config.eta)
        found = found.where(~np.isnan(may_be_chosen[found.row, found.chosen]))
    differ = candidates.texts[found.row, found.chosen] != candidates.texts[found.row, found.rejected]
    return capped(found.where(differ), candidates, config)


def capped(pairs: PairIndices, candidates: Candidates, config: PairsConfig) -> PairIndices:
    """Return at most `max_pairs_per_prompt` pairs a row, chosen as `cap` says."""
    limit = config.max_pairs_per_prompt
    if limit is None or pairs.row.size == 0:
        return pairs
    if config.cap == "random":
        seeds = prompt_seeds(config.seed, candidates.prompt_ids.to_pylist())
        return pairs.where(random_subset(*pairs, seeds, limit))
    gap = candidates.rewards[pairs.row, pairs.chosen] - candidates.rewards[pairs.row, pairs.rejected]
    return pairs.where(widest(*pairs, gap, limit))


def pair_table(candidates: Candidates, pairs: PairIndices, tau: float) -> pa.Table:
    """Return the stored columns of the selected pairs."""
    chosen = candidates.rewards[pairs.row, pairs.chosen]
    rejected = candidates.rewards[pairs.row, pairs.rejected]
    columns = {
        "prompt_id": candidates.prompt_ids.take(pa.array(pairs.row)),
        "chosen_id": pairs.chosen,
        "rejected_id": pairs.rejected,
        "chosen_reward": chosen,
        "rejected_reward": rejected,
        "reward_gap": chosen - rejected,
        "preference_prob": preference_prob(chosen - rejected, tau),
    }
    return pa.table(columns).cast(SCHEMAS["pairs"], safe=False)


def pairs_of_parts(
    parts: Iterable[tuple[pa.Table, pa.Table]], config: PairsConfig, counts: PairCounts
) -> Iterator[pa.Table]:
    """Yield the pairs of each part, that is, of some prompts' completions and their rewards, and count them."""
    for completions, rewards in parts:
        candidates = gather(completions, rewards)
        selected = select(candidates, config)
        counts.add(candidates.rewards, candidates.truncated, selected.row)
        yield pair_table(candidates, selected, config.tau)


def write_pairs(tables: Iterable[pa.Table], folder: Path) -> str:
    """Write tables of pairs as files of `FILE_ROWS` rows or somewhat more; return the digest of all rows."""
    digests = []
    for number, table in enumerate(_joined(tables)):
        (folder / f"rows-{number:06d}.parquet").write_bytes(table_bytes(table, "pairs"))
        digests.append(rows_digest(table))
    return format_digest(add_digests(digests))


def _joined(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting, rows = [], 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        if rows >= FILE_ROWS:
            yield pa.concat_tables(waiting)
            waiting, rows = [], 0
    if rows:
        yield pa.concat_tables(waiting)


def _preview() -> tuple[Artifact, dict[str, Any]]:
    return pending(0, "build_pairs"), {}


@stage(version=2, preview=_preview)
def build_pairs(out: Draft, rewards: Artifact, completions: Artifact, pairs: PairsConfig) -> Artifact:
    """Select the pairs to train on: sigma((r_j - r_l) / tau) > eta."""
    counts = PairCounts()
    parts = read_scored(out.store, completions, rewards, COLUMNS)
    with scratch_folder(out.provenance.key[:16]) as folder:
        digest = write_pairs(pairs_of_parts(parts, pairs, counts), folder)
        if not counts.pairs:
            raise ConfigurationError(counts.explain_none(pairs, gap_threshold(pairs.tau, pairs.eta)))
        files = {path.name: path for path in sorted(folder.iterdir())}
        return out.commit("pairs", files, digest, rows=counts.pairs, stats=counts.stats())


def _no_pairs() -> PairIndices:
    return PairIndices(*(np.empty(0, np.intp) for _ in range(3)))


def _matrix(rewards: np.ndarray) -> np.ndarray:
    rewards = np.asarray(rewards, np.float64)
    if rewards.ndim != 2:
        raise ValueError(
            f"rewards has shape {rewards.shape}, expected (n, k): one row a prompt, one column a completion"
        )
    return rewards


def _check(tau: float, eta: float) -> None:
    if not (tau > 0 and math.isfinite(tau)):
        raise ConfigurationError(f"pairs.tau = {tau} must be a positive number: it divides the reward gap")
    if not 0.5 <= eta < 1:
        raise ConfigurationError(
            f"pairs.eta = {eta} must be at least 0.5 and below 1: below 0.5 a pair and its mirror both pass"
        )
