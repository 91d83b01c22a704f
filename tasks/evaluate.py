"""Evaluation: reads two policies and held-out prompts, writes how the aligned one compares with pi_SFT."""

import itertools
import json
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.config.sections import Section
from tasks.config.settings import Decoding, EvaluationConfig, SamplingConfig, ScoringConfig
from tasks.data.prompt_table import PromptTable
from tasks.evaluation.divergence import KlSettings, estimate_kl, own_distribution, read_sorted
from tasks.evaluation.intervals import bootstrap_interval
from tasks.pipeline.dry_run import pending
from tasks.pipeline.stage import stage
from tasks.rewards.functions import GoldReward, gold_rewards, load_gold
from tasks.rewards.scoring import score_slices
from tasks.sampling.completions import sample_slices
from tasks.store.artifacts import Artifact, DamagedArtifactError, sha256_of
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS


class Method(Section):
    """Everything that decides an evaluation, the models and prompts apart."""

    decoding: Decoding
    scoring: ScoringConfig
    evaluation: EvaluationConfig
    gold: GoldReward


class Drawn(NamedTuple):
    """A policy's completions of the held-out prompts: one entry each, ordered by prompt_id and completion_id."""

    rows: pa.Table
    rewards: np.ndarray
    """float64; NaN: left out."""
    gold: np.ndarray | None
    parts: dict[str, str]
    """Folder -> digest of the parts that they are in."""

    @property
    def truncated(self) -> np.ndarray:
        """Return which completions were cut at max_new_tokens."""
        return np.array([reason == "length" for reason in self.rows["finish_reason"].to_pylist()], bool)

    def finished(self) -> "Drawn":
        """Return the same with the rewards of truncated completions left out."""
        rewards, gold = (
            None if values is None else np.where(self.truncated, np.nan, values) for values in (self.rewards, self.gold)
        )
        assert rewards is not None
        return self._replace(rewards=rewards, gold=gold)


def method(sampling: SamplingConfig, scoring: ScoringConfig, evaluation: EvaluationConfig, gold: GoldReward) -> Method:
    """Return the evaluation's settings: completions are drawn as in sampling, k and seed apart."""
    shared = {name: getattr(sampling, name) for name in Decoding.model_fields}
    decoding = Decoding(**{**shared, "k": evaluation.k, "seed": evaluation.seed})
    return Method(decoding=decoding, scoring=scoring, evaluation=evaluation, gold=gold)


def win_rate(ours: np.ndarray, theirs: np.ndarray, bootstrap_samples: int, seed: int) -> dict[str, Any] | None:
    """Compare the rewards of two policies on the same prompts.

    Args:
        ours: (n, k) rewards, one row a prompt; NaN: left out.
        theirs: (n, m) rewards of the other policy for the same prompts; NaN: left out.
        bootstrap_samples: Resamples of the prompts behind the interval.
        seed: Seed of the resampling.

    Returns:
        `win_rate`: probability that a completion of ours beats one of theirs for the same prompt, a tie counting half;
        `low`, `high`: its 95% bootstrap interval over prompts; `ties`: share of equal rewards; `prompts`: how many have
        a completion on both sides. None where no prompt has.
    """
    ours, theirs = ours[:, :, None], theirs[:, None, :]
    pairs = (~np.isnan(ours) & ~np.isnan(theirs)).sum((1, 2))
    compared = pairs > 0
    if not compared.any():
        return None
    above, equal = ((won.sum((1, 2)) / np.maximum(pairs, 1))[compared] for won in (ours > theirs, ours == theirs))
    wins = above + 0.5 * equal
    low, high = bootstrap_interval(wins, np.mean, bootstrap_samples, seed)
    figures = {"win_rate": float(wins.mean()), "low": low, "high": high, "ties": float(equal.mean())}
    return {**figures, "prompts": int(compared.sum())}


def distinct_2(texts: list[str]) -> float:
    """Return the number of different pairs of neighbouring words over the number of such pairs (arXiv:1510.03055)."""
    pairs: Counter[tuple[str, str]] = Counter()
    for text in texts:
        words = text.split()
        pairs.update(itertools.pairwise(words))
    return len(pairs) / pairs.total() if pairs else 0.0


def policy_stats(drawn: Drawn) -> dict[str, Any]:
    """Return a policy's own figures, of all its completions."""
    return {
        **_rewards(drawn),
        "mean_tokens": float(drawn.rows["num_tokens"].to_numpy().mean()),
        "distinct_2": distinct_2(drawn.rows["completion"].to_pylist()),
        "completions": drawn.rows.num_rows,
        "truncated": int(drawn.truncated.sum()),
        "truncation_rate": float(drawn.truncated.mean()),
    }


def compare(aligned: Drawn, sft: Drawn, evaluation: EvaluationConfig) -> dict[str, Any]:
    """Return the figures of both policies and the win rates of the aligned one, with and without truncated completions.

    A truncated completion's reward is for half an answer. Without them, a pair of completions counts where neither is
    truncated, and a prompt where it has such a pair.
    """
    finished = {"sft": sft.finished(), "aligned": aligned.finished()}
    without: dict[str, Any] = {name: _rewards(drawn) for name, drawn in finished.items()}
    without |= _win_rates(finished["aligned"], finished["sft"], evaluation)
    compared = without["reward"]["prompts"] if without["reward"] else 0
    without["prompts_left_out"] = aligned.rewards.size // evaluation.k - compared
    figures = {"sft": policy_stats(sft), "aligned": policy_stats(aligned), **_win_rates(aligned, sft, evaluation)}
    return {**figures, "without_truncated": without}


def _rewards(drawn: Drawn) -> dict[str, Any]:
    """Return mean and standard deviation of the rewards that are not left out; None where none is."""
    figures: dict[str, Any] = {}
    for name, values in (("reward", drawn.rewards), ("gold", drawn.gold)):
        if values is not None:
            kept = values[~np.isnan(values)]
            figures[f"{name}_mean"] = float(kept.mean()) if kept.size else None
            figures[f"{name}_std"] = float(kept.std()) if kept.size else None
    return figures


def _win_rates(aligned: Drawn, sft: Drawn, evaluation: EvaluationConfig) -> dict[str, Any]:
    """Return the aligned policy's win rate by each reward."""
    k, samples, seed = evaluation.k, evaluation.bootstrap_samples, evaluation.seed
    rates = {"reward": win_rate(aligned.rewards.reshape(-1, k), sft.rewards.reshape(-1, k), samples, seed)}
    if aligned.gold is not None and sft.gold is not None:
        rates["gold"] = win_rate(aligned.gold.reshape(-1, k), sft.gold.reshape(-1, k), samples, seed)
    return rates


def _draw(store: Store, policy: Artifact, reward_model: Artifact, held_out: Artifact, how: Method) -> Drawn:
    """Sample and score a policy on the held-out prompts, reusing what the store has."""
    slices, _ = sample_slices(store, policy, held_out, how.decoding)
    scored, _ = score_slices(store, reward_model, slices, held_out, how.scoring)
    rows, rewards = read_sorted(slices), read_sorted(scored)
    if rows.select(["prompt_id", "completion_id"]) != rewards.select(["prompt_id", "completion_id"]):
        raise DamagedArtifactError(
            "the rewards do not belong to these completions: delete the store's tables/rewards and run again"
        )
    gold = None
    if how.gold.function is not None:
        prompts, texts = PromptTable(held_out), rows["completion"].to_pylist()
        asked = zip(rows["prompt_id"].to_pylist(), texts, strict=True)
        gold = gold_rewards(how.gold, [(prompts[prompt_id], text) for prompt_id, text in asked])
    parts = {store.folder_of(slice_.part): slice_.part.digest for slice_ in (*slices, *scored)}
    return Drawn(rows, rewards["reward"].to_numpy().astype(np.float64), gold, parts)


def _samples_table(sft: Drawn, aligned: Drawn) -> pa.Table:
    """Return both policies' completions side by side, for people to read."""
    columns = {"prompt_id": sft.rows["prompt_id"], "completion_id": sft.rows["completion_id"]}
    for name, drawn in (("sft", sft), ("aligned", aligned)):
        columns[f"{name}_completion"] = drawn.rows["completion"]
        columns[f"{name}_reward"] = pa.array(drawn.rewards)
        columns[f"{name}_gold"] = (
            pa.array(drawn.gold) if drawn.gold is not None else pa.nulls(drawn.rows.num_rows, pa.float64())
        )
    return pa.table(columns).cast(SCHEMAS["evaluation"])


def _preview(
    draft: Draft, aligned: Artifact, policy: Artifact, reward_model: Artifact, held_out: Artifact, how: Method
) -> tuple[Artifact, dict[str, Any]]:
    decoding, own = how.decoding, own_distribution(how.decoding, how.evaluation.kl_completions)
    shared = decoding.k if own == decoding.model_copy(update={"k": own.k}) else 0
    completions = held_out.rows * (2 * decoding.k + own.k - shared)
    cost = {
        "prompts": held_out.rows,
        "completions": completions,
        "at most tokens": completions * decoding.max_new_tokens,
    }
    return pending(held_out.rows, "evaluate_policy"), cost


@stage(version=3, preview=_preview, retries=2)
def evaluate_policy(
    out: Draft, aligned: Artifact, policy: Artifact, reward_model: Artifact, held_out: Artifact, how: Method
) -> Artifact:
    """Compare the aligned policy with pi_SFT on held-out prompts."""
    if how.gold.function is not None:
        load_gold(how.gold)  # another function here is found before anything is sampled
    sft, new = (_draw(out.store, model, reward_model, held_out, how) for model in (policy, aligned))
    own = own_distribution(how.decoding, how.evaluation.kl_completions)
    kl = estimate_kl(out.store, aligned, policy, held_out, KlSettings(own, how.evaluation.bootstrap_samples))
    figures = {**compare(new, sft, how.evaluation), "divergence": kl.figures, "prompts": held_out.rows}
    text = json.dumps(figures, indent=2, sort_keys=True, allow_nan=False).encode()
    files = {"evaluation.json": text, "samples.parquet": table_bytes(_samples_table(sft, new), "evaluation")}
    keeps = {**sft.parts, **new.parts, **{out.store.folder_of(slice_.part): slice_.part.digest for slice_ in kl.slices}}
    return out.commit("evaluation", files, sha256_of(text), rows=sft.rows.num_rows, stats=figures, keeps=keeps)
