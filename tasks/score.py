"""Scoring: reads completions, writes one reward a completion, each prompt computed once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.artifacts import Artifact, Provenance
from tasks.config import ScoringConfig
from tasks.drafts import Draft, stage_key
from tasks.errors import ConfigurationError
from tasks.models import device, know_architecture, model_folder, trusts_remote_code
from tasks.plan import pending
from tasks.progress import Progress
from tasks.prompts import PromptTable
from tasks.schemas import format_digest
from tasks.stage import Work, stage
from tasks.storage import Store
from tasks.tables import GrowingTable, Slice, commit_slices, read_ahead, read_slices
from tasks.tokens import context_length, encode_prompt, encode_turn, load_tokenizer
from tasks.updates import warn_of_loss

TABLE_VERSION = 3
BINS = 20
"""Of the histogram of rewards."""


class RewardModel:
    """A reward model with its own tokenizer and chat template: r(x, y)."""

    def __init__(self, folder: Path, scoring: ScoringConfig, trust_remote_code: bool = False) -> None:
        """Load a model folder onto the GPU where there is one."""
        import torch
        from transformers import AutoModelForSequenceClassification

        from tasks.rewards import Rewards

        know_architecture(folder)
        self.tokenizer = load_tokenizer(folder, trust_remote_code)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, scoring.dtype), use_safetensors=True, trust_remote_code=trust_remote_code
        )
        if getattr(model.config.get_text_config(), "pad_token_id", None) is None:
            model.config.get_text_config().pad_token_id = self.tokenizer.pad_token_id
        self.rewards, self.limit = Rewards(model.to(device()), scoring.tokens_per_batch), context_length(folder)

    def score(self, prompts: list[list[dict[str, str]]], completions: list[str]) -> np.ndarray:
        """Return the reward of each prompt and completion, equal ones computed once.

        Raises:
            ConfigurationError: A sequence is longer than the reward model's context, or needs more memory than there
                is.
        """
        conversations: dict[str, int] = {}
        pairs: dict[tuple[int, str], int] = {}
        numbers = [
            pairs.setdefault((conversations.setdefault(json.dumps(prompt), len(conversations)), completion), len(pairs))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        messages = [json.loads(conversation) for conversation in conversations]
        prompt_ids = [encode_prompt(self.tokenizer, own) for own in messages]
        completion_ids = [encode_turn(self.tokenizer, completion, messages[number]) for number, completion in pairs]
        prompt_of = [number for number, _ in pairs]
        longest = max(len(prompt_ids[of]) + len(ids) for of, ids in zip(prompt_of, completion_ids, strict=True))
        if longest > self.limit:
            raise ConfigurationError(
                f"a prompt and completion have {longest} tokens, more than the reward model's context of {self.limit}: "
                "lower sampling.max_new_tokens, or use a reward model with a longer context"
            )
        return self.rewards(prompt_ids, completion_ids, prompt_of)[numbers]


def check_finite(rewards: pa.Table) -> None:
    """Refuse rewards that are no numbers.

    Raises:
        ConfigurationError: Names the completions.
    """
    bad = np.flatnonzero(~np.isfinite(rewards["reward"].to_numpy()))
    if bad.size:
        ids = [f"{rewards['prompt_id'][i]}/{rewards['completion_id'][i]}" for i in bad[:5].tolist()]
        raise ConfigurationError(
            f"{bad.size} rewards are NaN or infinite, first {', '.join(ids)}: the reward model is broken"
        )


def rewards_table(store: Store, reward_model: Artifact, scoring: ScoringConfig) -> GrowingTable:
    """Return the table that holds every reward that a model gave."""
    inputs, config = {"reward_model": reward_model.digest}, {"scoring": scoring.model_dump(mode="json")}
    key = stage_key("rewards", TABLE_VERSION, scoring.key_fields(), inputs)
    provenance = Provenance(stage="rewards", version=TABLE_VERSION, key=key, inputs=inputs, config=config)
    return GrowingTable(store, "rewards", provenance)


def part_of(completions: Slice) -> str:
    """Return the name of the part that holds the rewards of a slice of completions."""
    return format_digest(completions.digest())[:32]


def unscored(store: Store, reward_model: Artifact, completions: list[Slice], scoring: ScoringConfig) -> list[Slice]:
    """Return the slices of completions that the reward model has not scored."""
    table = rewards_table(store, reward_model, scoring)
    return [slice_ for slice_ in completions if table.find(part_of(slice_)) is None]


def score_slices(
    store: Store, reward_model: Artifact, completions: list[Slice], prompts: Artifact, scoring: ScoringConfig
) -> tuple[list[Slice], int]:
    """Return the rewards' parts, one a slice of completions in the same order, and how many completions were scored.

    A part is named by the digest of the completions it scores, so that new completions are never given old rewards.
    """
    table = rewards_table(store, reward_model, scoring)
    names = [part_of(slice_) for slice_ in completions]
    found = {name: part for name in names if (part := table.find(name)) is not None}
    todo = [(name, slice_) for name, slice_ in zip(names, completions, strict=True) if name not in found]
    if todo:
        warn_of_loss(reward_model, scoring.dtype, "scoring.dtype")
        model = RewardModel(model_folder(reward_model), scoring, trusts_remote_code(reward_model))
        messages = PromptTable(prompts)
        progress = Progress("scoring parts", len(todo))
        parts = read_ahead(slice_ for _, slice_ in todo)
        for done, ((name, _), rows) in enumerate(zip(todo, parts, strict=True), 1):
            found[name] = table.append(name, _score_rows(model, messages, rows))
            progress.move_to(done)
        progress.close()
    return [Slice(found[name]) for name in names], sum(found[name].rows for name, _ in todo)


def _score_rows(model: RewardModel, messages: PromptTable, rows: pa.Table) -> pa.Table:
    prompts = [messages[prompt_id] for prompt_id in rows["prompt_id"].to_pylist()]
    rewards = model.score(prompts, rows["completion"].to_pylist())
    table = rows.select(["prompt_id", "completion_id"]).append_column("reward", pa.array(rewards, pa.float32()))
    check_finite(table)
    return table


def _preview(
    draft: Draft, reward_model: Artifact, completions: Artifact, prompts: Artifact, scoring: ScoringConfig
) -> tuple[Artifact, dict[str, Any]]:
    return pending(completions.rows, "score_completions"), {"completions": completions.rows}


def _work(
    store: Store, reward_model: Artifact, completions: Artifact, prompts: Artifact, scoring: ScoringConfig
) -> Work:
    table = rewards_table(store, reward_model, scoring)

    def left() -> int:
        slices = unscored(store, reward_model, read_slices(store, completions), scoring)
        return sum(slice_.part.rows for slice_ in slices)

    return Work(table.provenance.key, left)


@stage(version=3, preview=_preview, work=_work, retries=2)
def score_completions(
    out: Draft, reward_model: Artifact, completions: Artifact, prompts: Artifact, scoring: ScoringConfig
) -> Artifact:
    """Score every completion with the reward model: r_j = r(x, y_j)."""
    slices, scored = score_slices(out.store, reward_model, read_slices(out.store, completions), prompts, scoring)
    rewards = np.concatenate([rows["reward"].to_numpy() for rows in read_ahead(slices)])
    stats = {"scored": scored, **describe(rewards)}
    return commit_slices(out, "rewards", slices, stats)


def describe(rewards: np.ndarray) -> dict[str, Any]:
    """Return mean, standard deviation and a histogram of `BINS` bins; no rewards have neither.

    Args:
        rewards: (completions,) finite numbers.
    """
    values = np.asarray(rewards, np.float64)  # float32 would overflow in the variance, and have no edges between bins
    if not values.size:
        return {"reward_mean": None, "reward_std": None, "histogram": {"counts": [], "edges": []}}
    low, high = float(values.min()), float(values.max())
    if high - low <= 2 * BINS * np.spacing(max(abs(low), abs(high))):  # equal, but for the last bits
        low, high = low - max(0.5, abs(low) / 2), high + max(0.5, abs(high) / 2)
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    histogram = {"counts": counts.tolist(), "edges": [float(f"{edge:.7g}") for edge in edges]}
    return {"reward_mean": float(values.mean()), "reward_std": float(values.std()), "histogram": histogram}
