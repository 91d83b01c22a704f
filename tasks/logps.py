"""Log-probabilities of completions under a policy, summed over a completion's tokens, each prompt computed once.

Imports torch and TRL, so import it inside functions only.
"""

import contextlib
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from tasks.grouped import Ids, cut_batches, lay_out_some, takes_batches, targets, why_not_shared


class CompletionLogps:
    """A causal model that gives completions their log-probabilities."""

    def __init__(
        self, model: PreTrainedModel, tokens_per_batch: int = 8192, autocast: torch.dtype | None = None
    ) -> None:
        """Take a model on its device.

        Args:
            model: Gets TRL's head, which computes the log-probability of each completion token alone.
            tokens_per_batch: Most tokens in one forward pass, padding apart.
            autocast: Type to compute in where it is not that of the weights.
        """
        self.model, self.tokens_per_batch, self.autocast = model.eval(), tokens_per_batch, autocast
        self.not_shared = why_not_shared(model)
        add_fused_lm_head(model)
        takes_batches(model.base_model)

    def __call__(self, prompts: Sequence[Ids], completions: Sequence[Ids], prompt_of: Sequence[int]) -> np.ndarray:
        """Return log pi(y | x) of each completion, (completions,) float64, in nats, at temperature 1.

        Args:
            prompts: Token ids of each x, at least one.
            completions: Token ids of each y, at least one.
            prompt_of: Each completion's prompt.
        """
        logps, shared = np.empty(len(completions)), self.not_shared is None
        kind = self.model.device.type
        computing = torch.autocast(kind, self.autocast) if self.autocast else contextlib.nullcontext()
        for some in cut_batches(prompts, completions, prompt_of, self.tokens_per_batch, shared):
            batch = lay_out_some(prompts, completions, prompt_of, some, shared).to(self.model.device)
            with torch.no_grad(), computing:
                tokens = self.model(batch=batch, shift_labels=targets(batch)[None], fused_lm_head=True).log_probs[0]
            sums = [own.double().sum() for own in tokens.split([len(completions[i]) for i in batch.order])]
            logps[batch.order] = torch.stack(sums).cpu().numpy()
        return logps
