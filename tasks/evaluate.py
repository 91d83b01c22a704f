"""Evaluation: reads two policies and held-out prompts, writes how the aligned one compares with pi_SFT."""

import itertools
import json
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.artifacts import Artifact, sha256_of
from tasks.config import Decoding, EvaluationConfig, SamplingConfig, ScoringConfig
from tasks.drafts import Draft
from tasks.errors import ConfigurationError
from tasks.functions import GoldReward, load_gold
from tasks.models import device, load_policy, model_folder, model_tokenizer, trusts_remote_code
from tasks.parquet import table_bytes
from tasks.plan import pending
from tasks.prompts import PromptTable
from tasks.sample import sample_slices
from tasks.schemas import SCHEMAS
from tasks.score import score_slices
from tasks.sections import Section
from tasks.stage import stage
from tasks.storage import Store
from tasks.tokens import encode_prompt


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
    gold: np.ndarray | None
    parts: dict[str, str]
    """Folder -> digest of the parts that they are in."""


def method(sampling: SamplingConfig, scoring: ScoringConfig, evaluation: EvaluationConfig, gold: GoldReward) -> Method:
    """Return the evaluation's settings: completions are drawn as in sampling, k and seed apart."""
    shared = {name: getattr(sampling, name) for name in Decoding.model_fields}
    decoding = Decoding(**{**shared, "k": evaluation.k, "seed": evaluation.seed})
    return Method(decoding=decoding, scoring=scoring, evaluation=evaluation, gold=gold)


def win_rate(ours: np.ndarray, theirs: np.ndarray, bootstrap_samples: int, seed: int) -> dict[str, float]:
    """Compare the rewards of two policies on the same prompts.

    Args:
        ours: (n, k) rewards, one row a prompt.
        theirs: (n, m) rewards of the other policy for the same prompts.
        bootstrap_samples: Resamples of the prompts behind the interval.
        seed: Seed of the resampling.

    Returns:
        `win_rate`: probability that a completion of ours beats one of theirs for the same prompt, a tie counting half;
        `low`, `high`: its 95% bootstrap interval over prompts; `ties`: share of equal rewards.
    """
    above = (ours[:, :, None] > theirs[:, None, :]).mean(axis=(1, 2))
    ties = (ours[:, :, None] == theirs[:, None, :]).mean(axis=(1, 2))
    wins = above + 0.5 * ties
    random = np.random.default_rng(seed)
    means = [wins[random.integers(0, wins.size, wins.size)].mean() for _ in range(bootstrap_samples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"win_rate": float(wins.mean()), "low": float(low), "high": float(high), "ties": float(ties.mean())}


def distinct_2(texts: list[str]) -> float:
    """Return the number of different pairs of neighbouring words over the number of such pairs (arXiv:1510.03055)."""
    pairs: Counter[tuple[str, str]] = Counter()
    for text in texts:
        words = text.split()
        pairs.update(itertools.pairwise(words))
    return len(pairs) / pairs.total() if pairs else 0.0


def describe(drawn: Drawn) -> dict[str, float]:
    """Return a policy's own figures."""
    tokens = drawn.rows["num_tokens"].to_numpy()
    figures = {
        "reward_mean": drawn.rewards.mean(),
        "reward_std": drawn.rewards.std(),
        "mean_tokens": tokens.mean(),
        "distinct_2": distinct_2(drawn.rows["completion"].to_pylist()),
        "truncation_rate": drawn.rows["finish_reason"].to_pylist().count("length") / drawn.rows.num_rows,
    }
    if drawn.gold is not None:
        figures |= {"gold_mean": drawn.gold.mean(), "gold_std": drawn.gold.std()}
    return {name: float(value) for name, value in figures.items()}


def compare(aligned: Drawn, sft: Drawn, evaluation: EvaluationConfig) -> dict[str, Any]:
    """Return the figures of both policies and the win rates of the aligned one."""
    k, samples, seed = evaluation.k, evaluation.bootstrap_samples, evaluation.seed
    result: dict[str, Any] = {
        "sft": describe(sft),
        "aligned": describe(aligned),
        "reward": win_rate(aligned.rewards.reshape(-1, k), sft.rewards.reshape(-1, k), samples, seed),
    }
    if aligned.gold is not None and sft.gold is not None:
        result["gold"] = win_rate(aligned.gold.reshape(-1, k), sft.gold.reshape(-1, k), samples, seed)
    return result


def divergence(
    aligned: Artifact, policy: Artifact, drawn: Drawn, prompts: PromptTable, how: Method
) -> dict[str, float]:
    """Return KL(pi || pi_SFT) in nats, a sequence and a token, estimated on the aligned policy's completions."""
    from tasks.logps import CompletionLogps

    tokenizer, prompt_ids = model_tokenizer(policy), drawn.rows["prompt_id"].dictionary_encode().combine_chunks()
    contexts = [encode_prompt(tokenizer, prompts[prompt_id]) for prompt_id in prompt_ids.dictionary.to_pylist()]
    prompt_of, tokens = prompt_ids.indices.to_pylist(), drawn.rows["token_ids"].to_pylist()

    def logps(model: Artifact) -> np.ndarray:
        loaded = load_policy(model_folder(model), how.decoding.dtype, trusts_remote_code(model))
        return CompletionLogps(loaded.to(device()))(contexts, tokens, prompt_of)

    gap = logps(aligned) - logps(policy)
    return {"kl_sequence": float(gap.mean()), "kl_token": float(gap.sum() / drawn.rows["num_tokens"].to_numpy().sum())}


def _draw(store: Store, policy: Artifact, reward_model: Artifact, held_out: Artifact, how: Method) -> Drawn:
    """Sample and score a policy on the held-out prompts, reusing what the store has."""
    slices, _ = sample_slices(store, policy, held_out, how.decoding)
    scored, _ = score_slices(store, reward_model, slices, held_out, how.scoring)
    order = [("prompt_id", "ascending"), ("completion_id", "ascending")]
    rows = pa.concat_tables([slice_.read() for slice_ in slices]).sort_by(order)
    rewards = pa.concat_tables([slice_.read() for slice_ in scored]).sort_by(order)
    if rows.select(["prompt_id", "completion_id"]) != rewards.select(["prompt_id", "completion_id"]):
        raise ConfigurationError(
            "the rewards do not belong to these completions: delete the store's tables/rewards and run again"
        )
    gold = None
    if how.gold.function is not None:
        function, prompts = load_gold(how.gold), PromptTable(held_out)
        pairs = zip(rows["prompt_id"].to_pylist(), rows["completion"].to_pylist(), strict=True)
        gold = np.array([function(prompts[prompt_id], text) for prompt_id, text in pairs], np.float64)
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
    completions = 2 * held_out.rows * how.decoding.k
    cost = {
        "prompts": held_out.rows,
        "completions": completions,
        "at most tokens": completions * how.decoding.max_new_tokens,
    }
    return pending(held_out.rows, "evaluate_policy"), cost


@stage(version=1, preview=_preview, retries=2)
def evaluate_policy(
    out: Draft, aligned: Artifact, policy: Artifact, reward_model: Artifact, held_out: Artifact, how: Method
) -> Artifact:
    """Compare the aligned policy with pi_SFT on held-out prompts."""
    sft, new = (_draw(out.store, model, reward_model, held_out, how) for model in (policy, aligned))
    figures = compare(new, sft, how.evaluation)
    figures["divergence"] = divergence(aligned, policy, new, PromptTable(held_out), how)
    figures["prompts"] = held_out.rows
    text = json.dumps(figures, indent=2, sort_keys=True).encode()
    files = {"evaluation.json": text, "samples.parquet": table_bytes(_samples_table(sft, new), "evaluation")}
    parts = {**sft.parts, **new.parts}
    return out.commit("evaluation", files, sha256_of(text), rows=sft.rows.num_rows, stats=figures, parts=parts)
