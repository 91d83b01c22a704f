"""Rewards of completions: looked up in the table, the missing ones computed, each prompt once."""

import json
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.config.errors import ConfigurationError
from tasks.config.settings import ScoringConfig
from tasks.data.conversations import Messages
from tasks.data.prompt_table import PromptTable
from tasks.lm.context import context_length
from tasks.lm.memory import frees_memory
from tasks.lm.tokens import cut_at_prompts, encode_conversations, encode_prompt, load_tokenizer
from tasks.models.loading import device, model_folder, trusts_remote_code
from tasks.models.updates import warn_of_loss
from tasks.models.weight_files import register_oasst
from tasks.models.weights import load_weights
from tasks.pipeline.pace import Mean, Tell
from tasks.pipeline.progress import Progress
from tasks.rewards.table import find_rewards, merge_rewards, rewards_part, rewards_table
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.slices import Slice, read_ahead


class RewardModel:
    """A reward model with its own tokenizer and chat template: r(x, y)."""

    def __init__(self, folder: Path, scoring: ScoringConfig, trust_remote_code: bool = False) -> None:
        """Load a model folder onto the GPU where there is one."""
        import torch

        from tasks.rewards.model import CompletionRewards

        register_oasst(folder)
        self.tokenizer = load_tokenizer(folder, trust_remote_code)
        model = load_weights(folder, "reward_model", getattr(torch, scoring.dtype), trust_remote_code)
        if getattr(model.config.get_text_config(), "pad_token_id", None) is None:
            model.config.get_text_config().pad_token_id = self.tokenizer.pad_token_id
        self.rewards = CompletionRewards(model.to(device()), scoring.tokens_per_batch)
        self.limit = context_length(folder)

    def score(self, prompts: list[Messages], completions: list[str], tell: Tell | None = None) -> np.ndarray:
        """Return the reward of each prompt and completion, (completions,) float32; `tell` as for `score_what_fits`.

        Raises:
            ConfigurationError: A conversation is longer than the reward model's context, or needs more memory than
                there is.
        """
        rewards = self.score_what_fits(prompts, completions, tell)
        if unread := int(np.ma.getmaskarray(rewards).sum()):
            raise ConfigurationError(
                f"{unread} conversations have more tokens than the reward model's context of {self.limit}: lower "
                "sampling.max_new_tokens, or use a reward model with a longer context"
            )
        return np.asarray(rewards.data)

    def score_what_fits(
        self, prompts: list[Messages], completions: list[str], tell: Tell | None = None
    ) -> "np.ma.MaskedArray[Any, Any]":
        """Return the reward of each prompt and completion, masked where they are longer than the model's context.

        Equal ones are computed once; `tell` hears of each batch of different ones.

        Raises:
            ConfigurationError: A conversation needs more memory than there is.
        """
        numbers: dict[tuple[str, str], int] = {}
        asked = zip(map(json.dumps, prompts), completions, strict=True)
        places = [numbers.setdefault(pair, len(numbers)) for pair in asked]
        prompt_ids = {own: encode_prompt(self.tokenizer, json.loads(own)) for own, _ in numbers}
        whole = encode_conversations(self.tokenizer, [(json.loads(own), completion) for own, completion in numbers])
        fits = np.array([len(ids) <= self.limit for ids in whole], bool)
        rewards = np.ma.masked_all(len(whole), np.float32)
        if fits.any():
            beginnings = [prompt_ids[own] for own, _ in numbers]
            rewards[fits] = self.rewards(*cut_at_prompts(compress(beginnings, fits), compress(whole, fits)), tell)
        found: np.ma.MaskedArray = rewards[places]
        return found


def check_finite(rewards: pa.Table) -> None:
    """Refuse rewards that are no numbers.

    Raises:
        ConfigurationError: Names the completions.
    """
    bad = np.flatnonzero(~np.isfinite(rewards["reward"].to_numpy()))
    if bad.size:
        ids = [f"{rewards['prompt_id'][i]}/{rewards['completion_id'][i]}" for i in bad[:5].tolist()]
        raise ConfigurationError(
            f"{bad.size} rewards are NaN or infinite, first {', '.join(ids)}: the reward model is broken, name another"
        )


@frees_memory
def score_slices(
    store: Store, reward_model: Artifact, completions: list[Slice], prompts: Artifact, scoring: ScoringConfig
) -> tuple[list[Slice], int]:
    """Return slices with the rewards of completions, and how many completions were scored for them."""
    table = rewards_table(store, reward_model, scoring)
    found = merge_rewards(table, find_rewards(table, completions))
    slices, todo = ([slice_ for own in found for slice_ in getattr(own, side)] for side in ("rewards", "unscored"))
    scored = []
    if todo:
        warn_of_loss(reward_model, scoring.dtype, "scoring.dtype")
        model = RewardModel(model_folder(reward_model), scoring, trusts_remote_code(reward_model))
        ids = {id_ for rows in read_ahead(todo, ["prompt_id"]) for id_ in rows["prompt_id"].unique().to_pylist()}
        messages = PromptTable(prompts, only=ids)
        progress, mean = Progress("scoring completions", sum(slice_.num_rows() for slice_ in todo)), Mean("reward")
        for slice_, rows in zip(todo, read_ahead(todo), strict=True):
            given = _score_rows(model, messages, rows, lambda values: progress.advance(len(values)))
            scored.append(Slice(table.append(rewards_part(slice_, rows), given)))
            mean.add(given["reward"].to_numpy())
            progress.move_to(mean.number, mean.text())
        progress.close()
    return [*slices, *scored], sum(slice_.part.rows for slice_ in scored)


def _score_rows(model: RewardModel, messages: PromptTable, rows: pa.Table, tell: Tell) -> pa.Table:
    """Return the rewards of completions; NaN where a completion is longer than the model's context."""
    prompts = [messages[prompt_id] for prompt_id in rows["prompt_id"].to_pylist()]
    rewards = model.score_what_fits(prompts, rows["completion"].to_pylist(), tell)
    given = pa.array(rewards.filled(np.nan), pa.float32())
    table = rows.select(["prompt_id", "completion_id"]).append_column("reward", given)
    check_finite(table.filter(pa.array(~np.ma.getmaskarray(rewards))))
    return table
