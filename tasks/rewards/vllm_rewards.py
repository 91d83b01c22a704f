"""vLLM gives completions their rewards, with prefix caching, so that the completions of a prompt share it.

Imports torch, so import it inside functions only.
"""

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.config.settings import Decoding, ScoringConfig
from tasks.lm.batches import Ids, Sequences
from tasks.pipeline.pace import Tell
from tasks.sampling.vllm_engine import cache_arguments, prepare_import, stop_engine
from tasks.store.scratch import without_patterns

AT_ONCE = 1024
"""Completions that vLLM is given at once: progress is told, and a prompt's completions stay together."""
CPU_BLOCK = 32
"""Tokens of a block of the KV cache on CPU, where vLLM would take 128: a prompt is shared by whole blocks."""


class VllmRewards:
    """r(x, y) of token ids: the head's output at the last token, of a model that vLLM has loaded."""

    def __init__(self, folder: Path, scoring: ScoringConfig, limit: int, trust_remote_code: bool) -> None:
        """Start the engine.

        Args:
            folder: Model folder, for sequence classification with one label.
            scoring: The type of the weights.
            limit: Longest conversation in tokens.
            trust_remote_code: Run code that comes with the model.
        """
        on_cpu = prepare_import()
        from vllm import LLM

        self.links = contextlib.ExitStack()
        arguments: dict[str, Any] = {
            "model": str(self.links.enter_context(without_patterns(folder))),
            "runner": "pooling",
            "convert": "classify",
            "dtype": scoring.dtype,
            "max_model_len": limit,
            "enable_prefix_caching": True,
            "use_tqdm_on_load": False,
            "enforce_eager": on_cpu,
            "trust_remote_code": trust_remote_code,
            **({"block_size": CPU_BLOCK} if on_cpu else {}),
        }
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            # A conversation is all there from the start: to the cache it is a prompt with a completion of one token.
            self.llm = LLM(**cache_arguments(arguments, Decoding(k=1, max_new_tokens=1)), **arguments)

    def __call__(
        self,
        prompts: Sequence[Ids],
        completions: Sequence[Ids],
        prompt_of: Sequence[int],
        tell: Tell | None = None,
    ) -> np.ndarray:
        """Return the reward of each completion, (completions,) float32; as `CompletionRewards`."""
        from vllm import PoolingParams
        from vllm.inputs import tokens_input

        whole = Sequences(prompts, completions, prompt_of).joined().completions
        order = np.argsort(prompt_of, kind="stable")  # so that a prompt is still in the cache for its completions
        raw, rewards = PoolingParams(use_activation=False), np.empty(len(whole), np.float32)
        for start in range(0, len(order), AT_ONCE):
            places = order[start : start + AT_ONCE]
            inputs = [tokens_input(list(whole[place])) for place in places]
            found = self.llm.classify(inputs, pooling_params=raw, use_tqdm=False)
            rewards[places] = [each.outputs.probs[0] for each in found]
            if tell is not None:
                tell(rewards[places])
        return rewards

    def close(self) -> None:
        """Stop the engine and free its memory."""
        stop_engine(self.llm)
        del self.llm
        self.links.close()
