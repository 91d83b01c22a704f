"""Lays out a pack: the tensors that the forward pass and the losses take.

Imports torch, so import it inside functions only.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from tasks.lm.batches import Sequences
from tasks.lm.layout import LEAST_FILL, lay_out, targets
from tasks.lm.lengths import ANY_LENGTH, Lengths
from tasks.training.packs import DpoExample, Pack, PackSchedule
from tasks.training.weights import completion_shares


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
        """Return the tensors of one pack, and its number as `pack`."""
        number = rows[0]["pack"]
        return {"pack": number, **self.lay_out_pack(self.packs[number])}

    def lay_out_pack(self, pack: Pack) -> dict[str, Any]:
        """Return the tensors of a pack, or of a part of one.

        What is forwarded (see `_lay_out`); `pairs` (2, pairs): rows of chosen and rejected; `ref_logps` and `shares`
        (2, pairs), `reward_gaps` and `pair_weights` (pairs,); the pack's weights, and whether any pack's pairs have
        other weights than 1; `unrelated`: what is forwarded for KTO's reference point, with weights.
        """
        pieces = [(self.examples[piece.example], slice(piece.first, piece.last)) for piece in pack.pieces]
        sides = [(list(example.chosen[own]), list(example.rejected[own])) for example, own in pieces]
        used = [sorted({*chosen, *rejected}) for chosen, rejected in sides]
        forwarded, row_of = self._lay_out(
            [(example, places) for (example, _), places in zip(pieces, used, strict=True)]
        )
        starts = np.cumsum([0, *map(len, used)])
        places = [
            [start + known.index(i) for start, known, own in zip(starts, used, sides, strict=False) for i in own[side]]
            for side in (0, 1)
        ]
        pairs = row_of[torch.tensor(np.array(places))]
        gaps = [_known(example.reward_gaps, i) for example, own in pieces for i in range(own.start, own.stop)]
        return {
            **forwarded,
            "pairs": pairs,
            "ref_logps": forwarded["ref_logps"][pairs],
            "shares": pair_shares(pack, [example for example, _ in pieces]),
            "reward_gaps": torch.tensor(gaps, dtype=torch.float64),
            "pair_weights": pair_weights(pack),
            "weighted": self.weighted,
            "weight": pack.weight,
            "token_weight": pack.token_weight,
            **({"unrelated": self._unrelated(pack)} if pack.per_completion else {}),
        }

    def _lay_out(self, wanted: list[tuple[DpoExample, list[int]]]) -> tuple[dict[str, Any], torch.Tensor]:
        """Lay out completions of examples; return what is forwarded, and the row of each completion.

        `batch`: the layout; `input_ids` (1, tokens): the completions' tokens, row after row; `lengths` and `ref_logps`
        (completions,): of the rows.
        """
        completions = [example.completions[i] for example, places in wanted for i in places]
        prompt_of = [number for number, (_, places) in enumerate(wanted) for _ in places]
        ref_logps = [_known(example.ref_logps, i) for example, places in wanted for i in places]
        sequences = Sequences([example.prompt for example, _ in wanted], completions, prompt_of)
        batch = lay_out(sequences, self.shared, self.least_fill, self.lengths)
        forwarded = {
            "batch": batch._replace(order=[]),
            "input_ids": targets(batch)[None],
            "lengths": torch.tensor([len(completions[i]) for i in batch.order]),
            "ref_logps": torch.tensor(ref_logps, dtype=torch.float64)[batch.order],
        }
        return forwarded, torch.tensor(batch.order).argsort()

    def _unrelated(self, pack: Pack) -> dict[str, Any]:
        """Lay out the completion of another prompt of each piece, with `weights` that add up to 1 over the step."""
        examples = [self.examples[piece.example] for piece in pack.pieces]
        forwarded, row_of = self._lay_out([(example, [_place_of(example)]) for example in examples])
        counts = [piece.pairs for piece in pack.pieces]
        of_pieces = [own.sum() for own in pair_shares(pack, examples).split(counts, 1)]
        weights = torch.stack(of_pieces) * pack.weight / sum(counts)
        return {**forwarded, "weights": weights[row_of.argsort()]}


def _place_of(example: DpoExample) -> int:
    assert example.unrelated is not None  # added with the setting that has completions counted
    return example.unrelated


def pair_shares(pack: Pack, examples: Sequence[DpoExample]) -> torch.Tensor:
    """Return the part of its completion that each side of a pair is, times the step's pairs by its completions.

    NaN where completions are not counted.

    Args:
        pack: Pieces.
        examples: Of each piece.
    """
    found = [completion_shares(own)[:, p.first : p.last] for own, p in zip(examples, pack.pieces, strict=True)]
    return torch.tensor(np.concatenate(found, 1)) * (pack.per_completion or math.nan)


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
