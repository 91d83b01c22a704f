"""Log-probabilities of completions under a policy, summed over a completion's tokens, each prompt computed once.

Imports torch and TRL, so import it inside functions only.
"""

import contextlib
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from tasks.batches import Budget, Ids, Sequences
from tasks.errors import ConfigurationError
from tasks.grouped import by_completion, lay_out, name_body, takes_batches, targets
from tasks.sharing import lengths_of, why_not_shared


class CompletionLogps:
    """A causal model that gives completions their log-probabilities."""

    def __init__(
        self, model: PreTrainedModel, tokens_per_batch: int | None = None, autocast: torch.dtype | None = None
    ) -> None:
        """Take a model on its device.

        Args:
            model: Gets TRL's head, which computes the log-probability of each completion token alone.
            tokens_per_batch: Most tokens a batch; None: what suits the device.
            autocast: Type to compute in where it is not that of the weights.

        Raises:
            ConfigurationError: The model's logits are more than what TRL's head computes.
        """
        self.model, self.autocast = model.eval(), autocast
        name_body(model)
        self.budget = Budget(model, tokens_per_batch)
        self.not_shared = why_not_shared(model)
        self.lengths = lengths_of(model, shared=self.not_shared is None)
        add_fused_lm_head(model)
        _check_head(model)
        takes_batches(model.base_model)

    def __call__(self, prompts: Sequence[Ids], completions: Sequence[Ids], prompt_of: Sequence[int]) -> np.ndarray:
        """Return log pi(y | x) of each completion, (completions,) float64, in nats, at temperature 1.

        Args:
            prompts: Token ids of each x, at least one.
            completions: Token ids of each y, at least one.
            prompt_of: Each completion's prompt.

        Raises:
            ConfigurationError: A single completion needs more memory than there is.
        """
        kind = self.model.device.type
        computing = torch.autocast(kind, self.autocast) if self.autocast else contextlib.nullcontext()
        sequences = Sequences(prompts, completions, prompt_of)

        def forward(rows: list[int]) -> torch.Tensor:
            batch = lay_out(sequences.some(rows), self.not_shared is None, lengths=self.lengths).to(self.model.device)
            tokens = self.model(batch=batch, shift_labels=targets(batch)[None], fused_lm_head=True).log_probs[0]
            return torch.stack([own.double().sum() for own in by_completion(batch, tokens)])

        with torch.no_grad(), computing:
            return self.budget.run(sequences, forward)


@torch.no_grad()
def _check_head(model: PreTrainedModel) -> None:
    """Compare TRL's log-probabilities with the model's own on random tokens.

    Raises:
        ConfigurationError: They differ.
    """
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.get_text_config().vocab_size, (1, 16), generator=random).to(model.device)
    own = model(input_ids=ids).logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    theirs = model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.float()
    bound = 1e-3 if model.dtype in (torch.float32, torch.float64) else 0.05
    if not float((own - theirs).norm() / own.norm()) < bound:
        raise ConfigurationError(
            f"{type(model).__name__} computes its logits in a way that DPO does not know: its log-probabilities would "
            "be wrong. Use a model of another family"
        )
