"""Lays out a pack: the tensors that the forward pass and the losses take.

Imports torch, so import it inside functions only.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset

from tasks.lm.batches import Ids, Sequences
from tasks.lm.layout import LEAST_FILL, lay_out, targets
from tasks.lm.lengths import ANY_LENGTH, Lengths
from tasks.training.packs import DpoExample, Pack, PackSchedule


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
        self.weighted = any(pack.each for pack in packs)

    def __call__(self, rows: list[dict[str, int]]) -> dict[str, Any]:
        """Return the tensors of one pack.

        `batch`: the layout; `input_ids` (1, tokens): the completions' tokens, row after row; `lengths` (completions,);
        `pairs` (2, pairs): rows of chosen and rejected; `ref_logps` (2, pairs), `reward_gaps` and `pair_weights`
        (pairs,); the pack's weights, and whether any pack's pairs have other weights than 1.
        """
        pack = self.packs[rows[0]["pack"]]
        prompts: list[Ids] = []
        completions: list[Ids] = []
        prompt_of: list[int] = []
        ref_logps: list[float] = []
        gaps: list[float] = []
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
            ref_logps += [_known(example.ref_logps, i) for i in used]
            gaps += [_known(example.reward_gaps, i) for i in range(piece.first, piece.last)]
        batch = lay_out(Sequences(prompts, completions, prompt_of), self.shared, self.least_fill, self.lengths)
        places = torch.tensor(pairs)
        return {
            "batch": batch._replace(order=[]),
            "input_ids": targets(batch)[None],
            "lengths": torch.tensor([len(completions[i]) for i in batch.order]),
            "pairs": torch.tensor(batch.order).argsort()[places],
            "ref_logps": torch.tensor(ref_logps, dtype=torch.float64)[places],
            "reward_gaps": torch.tensor(gaps, dtype=torch.float64),
            "pair_weights": pair_weights(pack),
            "weighted": self.weighted,
            "weight": pack.weight,
            "token_weight": pack.token_weight,
        }


def pair_weights(pack: Pack) -> torch.Tensor:
    """Return the weight of each pair of a pack, (pairs,), 1 on average."""
    pairs = torch.tensor([piece.pairs for piece in pack.pieces])
    each = torch.tensor(pack.each or [1.0] * len(pairs), dtype=torch.float64)
    return each.repeat_interleave(pairs)


def _known(values: Sequence[float] | None, place: int) -> float:
    """Return a value, or NaN where no loss reads any: one that does all the same gives no number."""
    return math.nan if values is None else values[place]


def pack_numbers(schedule: PackSchedule) -> Dataset:
    """Return the data set that the trainer walks through: the numbers of the packs, in order."""
    return Dataset.from_dict({"pack": range(len(schedule.packs))})
