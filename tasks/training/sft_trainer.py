"""Demonstrations as passes of like length. Imports torch and TRL, so import it inside functions only."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from tasks.lm.layout import LEAST_FILL
from tasks.training.step_trainer import TakesSteps

NO_LOSS = -100
"""Label of a token that is not learned."""


class Demonstration(NamedTuple):
    """A prompt with its completion."""

    input_ids: Sequence[int]
    labels: Sequence[int]
    """The tokens of the completion, and `NO_LOSS` before them."""


class Demonstrations:
    """The demonstrations of a training, each read from disk when a step takes it."""

    least_fill = LEAST_FILL

    def __init__(self, rows: Any, pad_token_id: int, pad_to_multiple_of: int | None = None) -> None:
        """Take rows with `input_ids` and `completion_mask`, and how TRL's collator pads them."""
        self.rows = rows
        self.pad = DataCollatorForLanguageModeling(pad_token_id=pad_token_id, pad_to_multiple_of=pad_to_multiple_of)

    def __len__(self) -> int:
        """Return the number of demonstrations."""
        return len(self.rows)

    def read(self, step: np.ndarray) -> list[Demonstration]:
        """Return the demonstrations of a step."""
        found = self.rows[step.tolist()]
        return [
            Demonstration(ids, [id_ if own else NO_LOSS for id_, own in zip(ids, mask, strict=True)])
            for ids, mask in zip(found["input_ids"], found["completion_mask"], strict=True)
        ]

    def tokens(self, example: Demonstration) -> int:
        """Return the tokens of prompt and completion."""
        return len(example.input_ids)

    def size(self, example: Demonstration) -> int:
        """Return the tokens that are learned; the first one has nothing before it."""
        return sum(label != NO_LOSS for label in example.labels[1:])

    def halve(self, example: Demonstration) -> list[Demonstration]:
        """Return the demonstration: none is cut."""
        return [example]

    def lay_out(self, own: list[Demonstration], step: list[Demonstration], counts: bool) -> dict[str, Any]:
        """Return padded rows, and `items`, the tokens that the whole step learns."""
        rows = [
            {"input_ids": each.input_ids, "labels": each.labels if counts else [NO_LOSS] * len(each.labels)}
            for each in own
        ]
        return {**self.pad(rows), "items": sum(map(self.size, step))}


class StepSFTTrainer(TakesSteps, SFTTrainer):
    """TRL's trainer, with the mean over the tokens of a step that it takes over fixed batches."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return a pass's part of the mean over the step's tokens, by TRL's code."""
        rows = {name: values for name, values in inputs.items() if name != "items"}
        return super().compute_loss(model, rows, return_outputs, inputs["items"])
