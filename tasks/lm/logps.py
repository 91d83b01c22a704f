"""Log-probabilities of completions, and divergences of two policies along them, each prompt computed once.

Imports torch and TRL, so import it inside functions only.
"""

import contextlib
import copy
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from tasks.config.errors import ConfigurationError
from tasks.lm.batches import Budget, Ids, Sequences
from tasks.lm.layout import by_completion, lay_out, targets
from tasks.lm.prefix_forward import accept_batches, name_body, wanted_states
from tasks.lm.sharing import model_lengths, why_not_shared
from tasks.pipeline.pace import Tell

LOGITS = 1 << 24
"""Logits of each model that are in memory at once: 64 MB, or 131 positions of a vocabulary of 128,000 tokens."""


class CompletionLogps:
    """A causal model that gives completions their log-probabilities."""

    def __init__(
        self, model: PreTrainedModel, tokens_per_batch: int | None = None, autocast: torch.dtype | None = None
    ) -> None:
        """Take a model on its device.

        Args:
            model: Gets TRL's head, which computes no more of the logits than each completion token's log-probability.
            tokens_per_batch: Most tokens a batch; None: what suits the device.
            autocast: Type to compute in; None: the type of the weights.

        Raises:
            ConfigurationError: The model's logits are more than what TRL's head computes.
        """
        self.model, self.autocast = model.eval(), autocast
        name_body(model)
        self.budget = Budget(model, tokens_per_batch)
        self.not_shared = why_not_shared(model)
        self.lengths = model_lengths(model, shared=self.not_shared is None)
        add_fused_lm_head(model)
        _check_head(model)
        accept_batches(model.base_model)

    def __call__(
        self,
        prompts: Sequence[Ids],
        completions: Sequence[Ids],
        prompt_of: Sequence[int],
        tell: Tell | None = None,
    ) -> np.ndarray:
        """Return log pi(y | x) of each completion, (completions,) float64, in nats, at temperature 1.

        Args:
            prompts: Token ids of each x, at least one token.
            completions: Token ids of each y.
            prompt_of: Number of each completion's prompt, (completions,).
            tell: Hears of each batch.

        Raises:
            ConfigurationError: A single completion needs more memory than there is.
        """
        kind = self.model.device.type
        computing = torch.autocast(kind, self.autocast) if self.autocast else contextlib.nullcontext()
        sequences = Sequences(prompts, completions, prompt_of)

        def forward(rows: list[int]) -> torch.Tensor:
            batch = lay_out(sequences.subset(rows), self.not_shared is None, lengths=self.lengths).to(self.model.device)
            tokens = self.model(batch=batch, shift_labels=targets(batch)[None], fused_lm_head=True).log_probs[0]
            return torch.stack([own.double().sum() for own in by_completion(batch, tokens)])

        with torch.no_grad(), computing:
            return self.budget.run(sequences, forward, tell)


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
    if own.isnan().any():
        raise ConfigurationError(
            f"{type(model).__name__} gives log-probabilities that are NaN in {model.dtype}: take bfloat16 or float32 "
            "for dpo.dtype, or another model where that is so already"
        )
    if not float((own - theirs).norm() / own.norm()) < bound:
        raise ConfigurationError(
            f"{type(model).__name__} computes its logits in a way that DPO does not know: its log-probabilities would "
            "be wrong. Use a model of another family"
        )


class CompletionDivergence:
    """Two causal models of one vocabulary: how far apart they are along completions."""

    def __init__(
        self, policy: PreTrainedModel, reference: PreTrainedModel, tokens_per_batch: int | None = None
    ) -> None:
        """Take two models on the same device, whose heads compute in float32 from then on.

        Args:
            policy: pi.
            reference: pi_ref.
            tokens_per_batch: Most tokens a batch; None: what suits the device.

        Raises:
            ConfigurationError: Their vocabularies differ.
        """
        self.sides = (_Side(policy), _Side(reference))
        sizes = [side.vocabulary for side in self.sides]
        if sizes[0] != sizes[1]:
            raise ConfigurationError(
                f"the policy has logits of {sizes[0]} tokens and the reference of {sizes[1]}: KL needs one vocabulary"
            )
        self.budget = Budget(policy, tokens_per_batch)

    def __call__(
        self,
        prompts: Sequence[Ids],
        completions: Sequence[Ids],
        prompt_of: Sequence[int],
        tell: Tell | None = None,
    ) -> np.ndarray:
        """Return sum_t KL(pi(. | x, y_<t) || pi_ref(. | x, y_<t)) of each completion, (completions,) float64, in nats.

        The mean over completions drawn from pi is KL(pi || pi_ref), without bias: the expectation over the vocabulary
        takes the place of each token's log-ratio (Rao-Blackwellised, arXiv:2504.10637). Where the two policies are near
        each other, the sum varies far less than log pi(y | x) / pi_ref(y | x) does.

        Takes the arguments and raises the errors of `CompletionLogps`.
        """
        sequences = Sequences(prompts, completions, prompt_of)

        def forward(rows: list[int]) -> torch.Tensor:
            batch = sequences.subset(rows)
            step = max(1, LOGITS // self.sides[0].vocabulary)
            states = zip(*(side.states(batch).split(step) for side in self.sides), strict=True)
            tokens = torch.cat(
                [divergence(*(side.logits(own) for side, own in zip(self.sides, both, strict=True))) for both in states]
            )
            return torch.stack([own.double().sum() for own in tokens.split([len(ids) for ids in batch.completions])])

        with torch.no_grad():
            return self.budget.run(sequences, forward, tell)


def divergence(logits: torch.Tensor, ref_logits: torch.Tensor) -> torch.Tensor:
    """Return KL(p || q) = sum_v p(v) (log p(v) - log q(v)) of each row, (rows,), in nats.

    Args:
        logits: (rows, vocabulary) of p.
        ref_logits: (rows, vocabulary) of q.
    """
    logprobs, ref_logprobs = logits.log_softmax(-1), ref_logits.log_softmax(-1)
    terms = logprobs.exp() * (logprobs - ref_logprobs)
    terms = terms.where(logprobs > -torch.inf, 0.0)  # lim p log p = 0, also where q is 0 too
    return terms.sum(-1).clamp(min=0)  # rounding may leave -1e-8


class _Side:
    """One of two models: the states before completion tokens, and the logits that its own code makes of the states."""

    def __init__(self, model: PreTrainedModel) -> None:
        name_body(model)
        self.model, self.shared = model.eval(), why_not_shared(model) is None
        self.lengths = model_lengths(model, self.shared)
        self.decoder = model.base_model.get_decoder()  # what the model's own code calls, the base model or a part of it
        self.one_token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
        with torch.no_grad():
            self.output = self.decoder(input_ids=self.one_token, use_cache=False)
        if (head := model.get_output_embeddings()).weight.dtype != torch.float32:
            model.set_output_embeddings(copy.deepcopy(head).float())  # a copy, since it may be the embeddings too
        self.vocabulary = self.logits(self.output.last_hidden_state[0].float()).shape[-1]

    def states(self, sequences: Sequences) -> torch.Tensor:
        """Return the hidden state before each completion token, (tokens, hidden), completion after completion."""
        batch = lay_out(sequences, self.shared, lengths=self.lengths).to(self.model.device)
        return torch.cat(by_completion(batch, wanted_states(self.model.base_model, batch)))

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits at some states, (states, vocabulary) float32: scaled, capped, as the family does it."""
        output, forward = copy.copy(self.output), self.decoder.forward
        output.last_hidden_state = states.float()[None]
        self.decoder.forward = lambda *args, **kwargs: output
        try:
            logits: torch.Tensor = self.model(input_ids=self.one_token, use_cache=False).logits[0].float()
        finally:
            self.decoder.forward = forward
        return logits
