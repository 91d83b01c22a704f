"""A model with a scalar head gives completions their rewards, each prompt computed once.

Imports torch, so import it inside functions only.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from tasks.config.errors import ConfigurationError
from tasks.lm.batches import Budget, Ids, Sequences
from tasks.lm.layout import last_states_only, lay_out
from tasks.lm.prefix_forward import wanted_states
from tasks.lm.sharing import model_lengths, why_not_shared
from tasks.pipeline.pace import Tell
from tasks.pipeline.progress import log
from tasks.rewards.heads import head_in_float32


class CompletionRewards:
    """r(x, y) of token ids: the head's output at the last token of prompt and completion."""

    def __init__(self, model: PreTrainedModel, tokens_per_batch: int | None = None) -> None:
        """Take a model on its device.

        Args:
            model: For sequence classification, with one label.
            tokens_per_batch: Most tokens a batch; None: what suits the device.
        """
        self.model = model.eval()
        head_in_float32(model)
        self.budget = Budget(model, tokens_per_batch)
        self.not_shared = why_head_unknown(model) or why_not_shared(model)
        if self.not_shared:
            log(f"each completion is scored with its prompt, which is not shared: {self.not_shared}")
        self.alone = why_alone(model) if self.not_shared else None
        if self.alone:
            log(f"each completion is scored by itself, not in a batch: {self.alone}")
        self.lengths = model_lengths(model, shared=self.not_shared is None)

    def __call__(
        self,
        prompts: Sequence[Ids],
        completions: Sequence[Ids],
        prompt_of: Sequence[int],
        tell: Tell | None = None,
    ) -> np.ndarray:
        """Return the reward of each completion, (completions,) float32; it does not depend on the others.

        Where a batch needs more memory than there is, the budget is halved for this and all later batches.

        Args:
            prompts: Token ids of each x.
            completions: Token ids of each y, at least one.
            prompt_of: Each completion's prompt.
            tell: Hears of each batch.

        Raises:
            ConfigurationError: A single completion needs more memory than there is.
        """
        sequences = Sequences(prompts, completions, prompt_of)
        if self.not_shared:
            sequences = sequences.joined()
        forward = self._each_with_its_prompt if self.not_shared else self._with_shared_prompts
        with torch.inference_mode():
            return self.budget.run(sequences, lambda rows: forward(sequences, rows), tell).astype(np.float32)

    def _with_shared_prompts(self, sequences: Sequences, rows: list[int]) -> torch.Tensor:
        """Forward each prompt once, then the completions behind it."""
        batch = last_states_only(lay_out(sequences.subset(rows), shared=True, lengths=self.lengths))
        rewards = self.model.score(wanted_states(self.model.base_model, batch.to(self.model.device)))[:, 0]
        return torch.empty_like(rewards).index_copy_(0, torch.tensor(batch.order, device=rewards.device), rewards)

    def _each_with_its_prompt(self, sequences: Sequences, rows: list[int]) -> torch.Tensor:
        """Forward whole sequences through the model's own head, together where they may be."""
        alike: dict[int, list[int]] = {}
        for place, i in enumerate(rows):
            kind = place if self.alone else self.lengths.kind(len(sequences.completions[i]))
            alike.setdefault(kind, []).append(place)
        rewards = torch.empty(len(rows), device=self.model.device)
        for places in alike.values():
            rewards[places] = score_padded(self.model, [sequences.completions[rows[place]] for place in places])
        return rewards


def score_padded(model: PreTrainedModel, sequences: list[Ids]) -> torch.Tensor:
    """Return the rewards of whole sequences, forwarded together, padded on the right."""
    ids = [torch.tensor(own, device=model.device) for own in sequences]
    mask = pad_sequence([torch.ones_like(own) for own in ids], batch_first=True)
    padded = pad_sequence(ids, batch_first=True, padding_value=find_pad_token(model))
    return model(input_ids=padded, attention_mask=mask).logits[:, 0].float()


def why_alone(model: PreTrainedModel) -> str | None:
    """Return why a sequence's reward depends on the other sequences of its batch, or None where it does not.

    Compares two random sequences of different lengths; the longer one has an EOS within.
    """
    pad, eos = find_pad_token(model), getattr(model.config.get_text_config(), "eos_token_id", None)
    ends = [] if eos is None else [eos[0] if isinstance(eos, list) else eos]
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.get_text_config().vocab_size - 1, (12,), generator=random)
    ids += ids >= pad
    both: list[Ids] = [[*ids[:4].tolist(), *ends, *ids[4:8].tolist(), *ends], [*ids[8:].tolist(), *ends]]
    with torch.inference_mode():
        own = torch.cat([score_padded(model, [sequence]) for sequence in both])
        try:
            together = score_padded(model, both)
        except ValueError as error:
            return f"{type(model).__name__} takes no two of different lengths ({error})"
    apart = float((own - together).abs().max())
    bound = 1e-4 if model.dtype in (torch.float32, torch.float64) else 0.05
    return None if apart <= bound * float(own.abs().max()) else f"{type(model).__name__} reads the padding"


def find_pad_token(model: PreTrainedModel) -> int:
    """Return the id that a model pads with, which may be in the configuration of its text model."""
    configs = (model.config, model.config.get_text_config())
    found = [config.pad_token_id for config in configs if getattr(config, "pad_token_id", None) is not None]
    if not found:
        raise ConfigurationError(f"{type(model).__name__} names no pad token: set pad_token_id in its config.json")
    return int(found[0])


def why_head_unknown(model: PreTrainedModel) -> str | None:
    """Return why a reward is not `model.score` of the last hidden state, or None where it is.

    Compares both on two random sequences, one of them padded.
    """
    head, pad = getattr(model, "score", None), find_pad_token(model)
    if not isinstance(head, torch.nn.Linear) or head.out_features != 1:
        return f"{type(model).__name__} has no linear head `score` with one output"
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.get_text_config().vocab_size - 1, (2, 8), generator=random)
    ids += ids >= pad  # no token but the padding is the pad token
    mask = torch.ones_like(ids)
    ids[1, 5:], mask[1, 5:] = pad, 0
    inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    with torch.inference_mode():
        own = model(**inputs).logits[:, 0]
        read = head(model.base_model(**inputs).last_hidden_state)[[0, 1], [7, 4], 0]
    apart = float((own - read).abs().max())
    return None if apart <= 1e-2 * float(own.abs().max()) else f"{type(model).__name__}'s head does more than `score`"
