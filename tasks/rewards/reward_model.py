"""A reward model as it is computed with: loaded, with its own tokenizer and chat template."""

import json
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tasks.config.errors import ConfigurationError
from tasks.config.settings import ScoringConfig
from tasks.data.conversations import Messages
from tasks.lm.context import context_length
from tasks.lm.tokens import cut_at_prompts, encode_conversations, encode_prompt, load_tokenizer
from tasks.models.loading import device
from tasks.models.weight_files import register_oasst
from tasks.models.weights import load_weights
from tasks.pipeline.pace import Tell


class Rewards(Protocol):
    """Computes rewards of token ids, on one engine or another."""

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        prompt_of: Sequence[int],
        tell: Tell | None = None,
    ) -> np.ndarray:
        """Return the reward of each completion behind its prompt, (completions,) float32."""


class RewardModel:
    """A reward model with its own tokenizer and chat template: r(x, y)."""

    def __init__(self, folder: Path, scoring: ScoringConfig, trust_remote_code: bool = False) -> None:
        """Load a model folder onto the GPU where there is one."""
        import torch

        from tasks.rewards.model import CompletionRewards

        register_oasst(folder)
        self.folder, self.trust_remote_code = folder, trust_remote_code
        self.tokenizer = load_tokenizer(folder, trust_remote_code)
        model = load_weights(folder, "reward_model", getattr(torch, scoring.dtype), trust_remote_code)
        if getattr(model.config.get_text_config(), "pad_token_id", None) is None:
            model.config.get_text_config().pad_token_id = self.tokenizer.pad_token_id
        self.rewards: Rewards = CompletionRewards(model.to(device()), scoring.tokens_per_batch)
        self.vocabulary = int(model.config.get_text_config().vocab_size)
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
