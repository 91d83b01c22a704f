"""TRL's `DPOTrainer`, made to forward each unique completion once, whatever number of pairs it is in.

The loss is TRL's own code: it asks its model for the log-probabilities of a batch of pairs, and gets, row by row, the
log-probabilities of the unique completions. Imports torch and TRL, so import it inside functions only.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType, send_to_device
from trl import DPOTrainer

from tasks.lm.prefix_forward import accept_batches, take_rows
from tasks.training.halving import FittingPacks, RepeatableStep
from tasks.training.packs import Pack
from tasks.training.pair_values import PAIR_METRICS, OwnLoss, PairValues, added_losses, pair_metrics

PER_TOKEN = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs")


class PackedDPOTrainer(DPOTrainer):
    """DPO on packs: one row of the data set is one pack.

    Adds up, over the packs of a step and its devices, the weighted mean over the step's pairs.
    """

    loss_weights: list[float]
    use_weighting: bool
    _total_train_tokens: int
    loss_is_scaled_for_ga = True
    """No division by the number of packs: their weights add up to 1."""

    def __init__(
        self, own_losses: Sequence[tuple[OwnLoss, float]] = (), mean_scale: float | None = None, **arguments: Any
    ) -> None:
        """Take TRL's arguments; a collator of packs, and the reference's log-probabilities in them.

        Args:
            own_losses: Losses of pairs that are added to TRL's, with their weights.
            mean_scale: Without a reference: what is logged as a completion's reward is this times log pi(y|x) / |y|.
                None: it is beta log pi(y|x)/pi_ref(y|x).
            **arguments: Of TRL's trainer.
        """
        super().__init__(**arguments)
        self.own_losses, self.mean_scale, self._wpo = own_losses, mean_scale, self.use_weighting
        accept_batches(getattr(self.model, "get_base_model", lambda: self.model)().base_model)
        self.accelerator.gather = uneven_gather(self.accelerator.gather, self.accelerator.device)
        self._loss_weights = list(self.loss_weights)
        self._shares: list[float] = []
        self.reference_point = torch.tensor(float("nan"))
        alone = self.accelerator.distributed_type == DistributedType.NO
        self.step = RepeatableStep(FittingPacks(self.data_collator, alone), self._drop_step)
        self._note_step()

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs  # accelerate's data loader has put them on the device

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Go forward and backward through a pack, in parts where it does not fit the memory; return its loss."""
        pack = self.data_collator.packs[inputs["pack"]]
        learn = super().training_step
        return self.step.take(pack, lambda part: learn(model, self._laid_out(pack, inputs, part)))

    def _laid_out(self, pack: Pack, inputs: dict[str, Any], part: Pack) -> dict[str, Any]:
        """Return a pack's inputs, or those of a part of it."""
        if part is pack:
            return inputs
        laid_out: dict[str, Any] = send_to_device(self.data_collator.lay_out_pack(part), self.accelerator.device)
        return laid_out

    def _note_step(self) -> None:
        """Remember what was logged before a step."""
        self.step.taken = []
        logged = {name: list(values) for name, values in self._metrics["train"].items()}
        self._before = logged, list(self._shares), self._total_train_tokens

    def _drop_step(self) -> None:
        """Forget the gradients of the step so far, and what was logged of it."""
        self.model.zero_grad()
        logged, shares, self._total_train_tokens = self._before
        self._metrics["train"] = defaultdict(list, {name: list(values) for name, values in logged.items()})
        self._shares = list(shares)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> torch.Tensor:
        """Return the weighted loss of a pack, by TRL's code."""
        weight, devices = inputs["weight"], self.accelerator.num_processes
        if not weight and devices == 1:  # nothing is left for this round
            return next(p for p in model.parameters() if p.requires_grad).sum() * 0.0
        self._shares.append(float(self.accelerator.gather(torch.tensor(weight, device=self.accelerator.device)).sum()))
        # TRL's "sft" is a mean over tokens, the others are means over pairs.
        of_tokens = inputs["token_weight"] / weight if weight else 0.0
        self.loss_weights = [
            own * of_tokens if name == "sft" else own
            for name, own in zip(self.loss_types, self._loss_weights, strict=True)
        ]
        pairs, outputs = self._forward_pack(model, inputs)
        values = self.pair_values(inputs, pairs, outputs.log_probs)
        weighs_theirs = inputs["weighted"] and any(self._loss_weights)
        self.use_weighting = self._wpo or weighs_theirs
        if weighs_theirs:
            outputs.log_sum_sq_probs = weighing(outputs, values.weights, self._wpo)
        loss = super()._compute_loss(lambda **_: outputs, pairs, return_outputs)
        if inputs["weighted"] or self.mean_scale is not None or devices > 1:  # TRL counts packs of weight 0, too
            self._log_own(values, weight)
        return (loss + added_losses(self.own_losses, values).to(loss)) * weight * devices

    def pair_values(
        self, inputs: dict[str, Any], pairs: dict[str, torch.Tensor], log_probs: torch.Tensor
    ) -> PairValues:
        """Return what losses read of a pack's pairs.

        Args:
            inputs: The pack, as laid out.
            pairs: What TRL's loss takes.
            log_probs: (2 pairs, tokens) of the chosen completions, then of the rejected ones; 0 on padding.
        """
        return PairValues(
            beta=self.beta,
            logps=torch.stack(log_probs.sum(1).chunk(2)),
            ref_logps=torch.stack([pairs["ref_chosen_logps"], pairs["ref_rejected_logps"]]),
            lengths=inputs["lengths"][inputs["pairs"]],
            reward_gaps=inputs["reward_gaps"].to(log_probs),
            shares=inputs["shares"].to(log_probs),
            reference_reward=self.beta * self.reference_point.to(log_probs),
            weights=inputs["pair_weights"].to(log_probs),
        )

    def rewards(self, values: PairValues) -> torch.Tensor:
        """Return the policy's own reward of each completion, (2, pairs)."""
        return values.rewards if self.mean_scale is None else self.mean_scale * values.mean_logps

    def margins(self, values: PairValues) -> torch.Tensor:
        """Return the rewards of the chosen completions less those of the rejected ones, (pairs,)."""
        return values.margins if self.mean_scale is None else torch.sub(*self.rewards(values))

    def _log_own(self, values: PairValues, weight: float) -> None:
        """Put in place of TRL's means over a round's pairs the weighted ones, of rewards that need no reference."""
        own = pair_metrics(values, self.rewards(values))
        sums = torch.cat([own, own.new_ones(1)]).double() * weight
        total = self.accelerator.gather(sums).view(-1, len(sums)).sum(0)
        for name, value in zip(PAIR_METRICS, (total[:-1] / total[-1].clamp(min=1e-300)).tolist(), strict=True):
            self._metrics["train"][name][-1] = value

    def _forward_pack(self, model: Any, inputs: dict[str, Any]) -> tuple[dict[str, torch.Tensor], SimpleNamespace]:
        """Forward a pack; return what TRL's loss takes and what its model would give, chosen rows before rejected."""
        padded, is_token = forward(model, inputs)
        rows = inputs["pairs"].flatten()
        outputs = {name: take_rows(values, rows) for name, values in padded.items()}
        mask = torch.nn.functional.pad(is_token[rows], (1, 0)).long()
        ref_chosen, ref_rejected = inputs["ref_logps"].to(padded["log_probs"].dtype)
        pairs = {
            "input_ids": mask,
            "completion_mask": mask,
            "attention_mask": torch.tensor([inputs["batch"].tokens], device=mask.device),
            "ref_chosen_logps": ref_chosen,
            "ref_rejected_logps": ref_rejected,
        }
        return pairs, SimpleNamespace(**outputs)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """Return the packs of a step; measure what all of them are compared with, where a loss reads that."""
        packs, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if packs and "unrelated" in packs[0]:
            self.measure_reference(packs)
            self._metrics["train"]["kl"].append(self.reference_point.item())
        self._note_step()
        return packs, items

    @torch.no_grad()
    def measure_reference(self, packs: Sequence[dict[str, Any]]) -> None:
        """Take z0 = max(0, mean of log pi(y'|x)/pi_ref(y'|x)), y' of another prompt, over a step's completions."""
        total = torch.zeros(1, dtype=torch.float64, device=self.accelerator.device)
        for given in packs:
            pack = self.data_collator.packs[given["pack"]]
            total += self.step.packs.add_up(pack, functools.partial(self._log_ratios, pack, given))
        self.reference_point = self.accelerator.gather(total).sum().clamp(min=0)

    def _log_ratios(self, pack: Pack, inputs: dict[str, Any], part: Pack) -> torch.Tensor:
        """Return the weighted sum of log pi(y'|x)/pi_ref(y'|x) over a pack, or a part of it, ()."""
        own = self._laid_out(pack, inputs, part)["unrelated"]
        with self.compute_loss_context_manager():
            padded, _ = forward(self.model_wrapped, own)
        return (own["weights"] * (padded["log_probs"].sum(1) - own["ref_logps"])).sum()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; what TRL averages over packs is averaged over pairs, by the packs' shares of the step's pairs."""
        for name in PAIR_METRICS:
            if values := self._metrics["train"].get(name):
                self._metrics["train"][name] = [float(np.average(values, weights=self._shares))]
        self._shares.clear()
        super().log(logs, start_time)


def forward(model: Any, laid_out: dict[str, Any]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Forward what is laid out; return each output of a token, (completions, tokens), 0 on padding, and what is none.

    Args:
        model: The policy.
        laid_out: `batch`, `input_ids` and `lengths`.
    """
    found = model(batch=laid_out["batch"], shift_labels=laid_out["input_ids"], fused_lm_head=True)
    lengths = laid_out["lengths"]
    is_token = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
    flat = {name: values for name in PER_TOKEN if (values := getattr(found, name)) is not None}
    return {name: v.new_zeros(is_token.shape).masked_scatter(is_token, v) for name, v in flat.items()}, is_token


def weighing(outputs: SimpleNamespace, weights: torch.Tensor, wpo: bool) -> torch.Tensor:
    """Return the `log_sum_sq_probs` with which TRL's own loss weighs pairs as wanted.

    Its WPO (arXiv:2406.11827) multiplies a pair's loss with exp(mean over tokens of log_probs - log_sum_sq_probs) of
    either side. So half the logarithm of a weight, taken off each side's log_sum_sq_probs, is that factor.

    Args:
        outputs: Of the model, chosen rows before rejected.
        weights: Of the pairs, (pairs,), 1 on average.
        wpo: The weights of WPO are wanted as well.
    """
    base = outputs.log_sum_sq_probs if wpo else outputs.log_probs.detach()
    return base - 0.5 * weights.log().repeat(2)[:, None]


def uneven_gather(gather: Callable[[Any], Any], device: torch.device) -> Callable[[Any], Any]:
    """Return accelerate's `gather` for tensors whose first dimension differs between processes."""

    def gather_uneven(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim == 0:
            return gather(tensor)
        counts = gather(torch.tensor([len(tensor)], device=device)).tolist()
        longest = max(counts)
        padded = torch.cat([tensor, tensor.new_zeros(longest - len(tensor), *tensor.shape[1:])])
        pieces = gather(padded).split(longest)
        return torch.cat([piece[:count] for piece, count in zip(pieces, counts, strict=True)])

    return gather_uneven
