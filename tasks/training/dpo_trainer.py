"""TRL's `DPOTrainer`, made to forward each unique completion once, whatever number of pairs it is in.

The loss is TRL's own code: it asks its model for the log-probabilities of a batch of pairs, and gets, row by row, the
log-probabilities of the unique completions. Imports torch and TRL, so import it inside functions only.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl import DPOTrainer

from tasks.lm.batches import Ids, Sequences
from tasks.lm.layout import LEAST_FILL, lay_out, targets
from tasks.lm.lengths import ANY_LENGTH, Lengths
from tasks.lm.prefix_forward import accept_batches, take_rows
from tasks.training.packs import DpoExample, Pack, PackSchedule

PER_TOKEN = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs")
OwnLoss = Callable[[torch.Tensor], torch.Tensor]
"""From the margins beta (log-ratio of chosen - log-ratio of rejected), (pairs,), to each pair's loss."""
PAIR_METRICS = (
    *("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"),
    *("logps/chosen", "logps/rejected"),
)


class PackCollator:
    """Lays out a pack for the forward pass and for the loss."""

    def __init__(
        self, examples: Sequence[DpoExample], packs: Sequence[Pack], shared: bool, lengths: Lengths | None = ANY_LENGTH
    ) -> None:
        """Take the examples and the packs that are made of them.

        Args:
            examples: All examples.
            packs: All packs.
            shared: Compute each prompt once for its completions.
            lengths: What may be forwarded together; None: call the model once a pack, whatever is in it.
        """
        self.examples, self.packs, self.shared = examples, packs, shared
        self.least_fill, self.lengths = (0.0, ANY_LENGTH) if lengths is None else (LEAST_FILL, lengths)

    def __call__(self, rows: list[dict[str, int]]) -> dict[str, Any]:
        """Return the tensors of one pack.

        `batch`: the layout; `input_ids` (1, tokens): the completions' tokens, row after row; `lengths` (completions,);
        `pairs` (2, pairs): rows of chosen and rejected; `ref_logps` (2, pairs); the pack's weights.
        """
        pack = self.packs[rows[0]["pack"]]
        prompts: list[Ids] = []
        completions: list[Ids] = []
        prompt_of: list[int] = []
        ref_logps: list[float] = []
        pairs: tuple[list[int], list[int]] = ([], [])
        for piece in pack.pieces:
            example = self.examples[piece.example]
            sides = example.chosen[piece.first : piece.last], example.rejected[piece.first : piece.last]
            used = sorted({*sides[0], *sides[1]})
            for side, own in zip(pairs, sides, strict=True):
                side.extend(len(completions) + used.index(i) for i in own)
            prompt_of += [len(prompts)] * len(used)
            prompts.append(example.prompt)
            completions += [example.completions[i] for i in used]
            ref_logps += [example.ref_logps[i] for i in used]
        batch = lay_out(Sequences(prompts, completions, prompt_of), self.shared, self.least_fill, self.lengths)
        places = torch.tensor(pairs)
        return {
            "batch": batch._replace(order=[]),
            "input_ids": targets(batch)[None],
            "lengths": torch.tensor([len(completions[i]) for i in batch.order]),
            "pairs": torch.tensor(batch.order).argsort()[places],
            "ref_logps": torch.tensor(ref_logps, dtype=torch.float64)[places],
            "weight": pack.weight,
            "token_weight": pack.token_weight,
        }


def pack_numbers(schedule: PackSchedule) -> Dataset:
    """Return the data set that the trainer walks through: the numbers of the packs, in order."""
    return Dataset.from_dict({"pack": range(len(schedule.packs))})


class PackedDPOTrainer(DPOTrainer):
    """DPO on packs: one row of the data set is one pack.

    Adds up, over the packs of a step and its devices, the mean over the step's pairs.
    """

    loss_weights: list[float]
    loss_is_scaled_for_ga = True
    """No division by the number of packs: their weights add up to 1."""

    def __init__(self, own_losses: Sequence[tuple[OwnLoss, float]] = (), **arguments: Any) -> None:
        """Take TRL's arguments; a collator of packs, and the reference's log-probabilities in them.

        Args:
            own_losses: Losses of the pairs' margins that are added to TRL's, with their weights.
            **arguments: Of TRL's trainer.
        """
        super().__init__(**arguments)
        self.own_losses = own_losses
        accept_batches(getattr(self.model, "get_base_model", lambda: self.model)().base_model)
        self.accelerator.gather = uneven_gather(self.accelerator.gather, self.accelerator.device)
        self._loss_weights = list(self.loss_weights)
        self._shares: list[float] = []

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs  # accelerate's data loader has put them on the device

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
        loss = super()._compute_loss(lambda **_: outputs, pairs, return_outputs)
        if self.own_losses:
            margins = self.beta * pair_margins(outputs.log_probs, pairs)
            loss = loss + sum(own * function(margins).mean() for function, own in self.own_losses)
        return loss * weight * devices

    def _forward_pack(self, model: Any, inputs: dict[str, Any]) -> tuple[dict[str, torch.Tensor], SimpleNamespace]:
        """Forward a pack; return what TRL's loss takes and what its model would give, chosen rows before rejected."""
        found = model(batch=inputs["batch"], shift_labels=inputs["input_ids"], fused_lm_head=True)
        lengths, rows = inputs["lengths"], inputs["pairs"].flatten()
        is_token = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
        flat = {name: values for name in PER_TOKEN if (values := getattr(found, name)) is not None}
        padded = {name: v.new_zeros(is_token.shape).masked_scatter(is_token, v) for name, v in flat.items()}
        outputs = {name: take_rows(values, rows) for name, values in padded.items()}
        mask = torch.nn.functional.pad(is_token[rows], (1, 0)).long()
        ref_chosen, ref_rejected = inputs["ref_logps"].to(found.log_probs.dtype)
        pairs = {
            "input_ids": mask,
            "completion_mask": mask,
            "attention_mask": torch.tensor([inputs["batch"].tokens], device=lengths.device),
            "ref_chosen_logps": ref_chosen,
            "ref_rejected_logps": ref_rejected,
        }
        return pairs, SimpleNamespace(**outputs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; what TRL averages over packs is averaged over pairs, by the packs' shares of the step's pairs."""
        for name in PAIR_METRICS:
            if values := self._metrics["train"].get(name):
                self._metrics["train"][name] = [float(np.average(values, weights=self._shares))]
        self._shares.clear()
        super().log(logs, start_time)


def pair_margins(log_probs: torch.Tensor, pairs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return each pair's log pi(y_w|x)/pi_ref(y_w|x) - log pi(y_l|x)/pi_ref(y_l|x), (pairs,).

    Args:
        log_probs: (2 pairs, tokens) of the chosen completions, then of the rejected ones; 0 on padding.
        pairs: `ref_chosen_logps` and `ref_rejected_logps`, (pairs,) each.
    """
    chosen, rejected = log_probs.sum(1).chunk(2)
    return (chosen - pairs["ref_chosen_logps"]) - (rejected - pairs["ref_rejected_logps"])


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
