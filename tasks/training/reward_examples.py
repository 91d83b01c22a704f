"""The preferences of a training: which a step takes, and how a pass of them is laid out.

Imports torch, so import it inside functions only.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from tasks.config.reward_losses import REWARD_LOSSES
from tasks.config.settings import RewardModelConfig
from tasks.lm.batches import Sequences
from tasks.lm.layout import LEAST_FILL, last_states_only, lay_out
from tasks.lm.lengths import ANY_LENGTH, Lengths
from tasks.pipeline.progress import log
from tasks.rewards.model import why_alone
from tasks.training.preference_groups import PreferenceGroup, group_pairs, halve_group
from tasks.training.shared_prompts import plan_sharing


class Preferences:
    """Preferences by the elements that a loss counts: pairs, or prompts with all of theirs.

    They are read from disk when a step takes them. Pairs of one prompt are one group in a step, whatever is counted.
    """

    least_fill = 0.0  # `lay_out` puts like lengths together

    def __init__(
        self,
        rows: Any,
        config: RewardModelConfig,
        shared: bool,
        lengths: Lengths | None,
        least_fill: float = LEAST_FILL,
    ) -> None:
        """Take rows with `prompt_id`, those of a prompt after one another, `chosen_ids`, `rejected_ids` and `margin`.

        Args:
            rows: On disk; the margin only where the loss reads one.
            config: The section of the training.
            shared: Compute each prompt once for its completions.
            lengths: What may be forwarded together; None: call the model once a pass, whatever is in it.
            least_fill: Share of the longest row's tokens that each other row has at least that is padded to it.
        """
        self.rows, self.loss, self.devices, self.shared = rows, REWARD_LOSSES[config.loss], config.devices, shared
        self.lengths, self.row_fill = (ANY_LENGTH, 0.0) if lengths is None else (lengths, least_fill)
        ids = np.array(rows["prompt_id"])
        _, self.prompt_of = np.unique(ids, return_inverse=True)
        places = np.arange(len(ids))
        by_prompt = np.split(places, np.flatnonzero(np.diff(self.prompt_of)) + 1)
        self.elements: Sequence[np.ndarray] = by_prompt if self.loss.element == "prompt" else list(places[:, None])

    def __len__(self) -> int:
        """Return the number of elements."""
        return len(self.elements)

    def read(self, step: np.ndarray) -> list[PreferenceGroup]:
        """Return the groups of a step, one a prompt."""
        places = np.sort(np.concatenate([self.elements[i] for i in step]))
        found = self.rows[places.tolist()]
        rows = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
        by_prompt = itertools.groupby(zip(self.prompt_of[places], rows, strict=True), lambda own: int(own[0]))
        ranked = "rankings" in self.loss.reads
        return [group_pairs([row for _, row in own], ranked) for _, own in by_prompt]

    def tokens(self, example: PreferenceGroup) -> int:
        """Return the tokens to forward."""
        return example.tokens(self.shared)

    def size(self, example: PreferenceGroup) -> int:
        """Return the number of pairs."""
        return example.pairs

    def halve(self, example: PreferenceGroup) -> list[PreferenceGroup]:
        """Cut a group between its pairs, where the loss is a sum over them."""
        return halve_group(example)

    def lay_out(self, own: list[PreferenceGroup], step: list[PreferenceGroup], counts: bool) -> dict[str, Any]:
        """Return what is forwarded, and what the loss reads.

        `batch`: the layout; `pairs` (2, pairs): rows of chosen and rejected; `margins` and `comparisons` (pairs,);
        `rankings`: rows of each; `weight`: of the sum of the losses, so that devices and passes make the step's mean.
        """
        prompt_of = [number for number, group in enumerate(own) for _ in group.completions]
        completions = [ids for group in own for ids in group.completions]
        sequences = Sequences([group.prompt for group in own], completions, prompt_of)
        batch = last_states_only(lay_out(sequences, self.shared, self.row_fill, self.lengths))
        row_of = torch.tensor(batch.order).argsort()
        starts = np.cumsum([0, *(len(group.completions) for group in own)])
        sides = [
            [start + i for start, group in zip(starts, own, strict=False) for i in side(group)]
            for side in (lambda group: group.chosen, lambda group: group.rejected)
        ]
        elements = len(step) if self.loss.element == "prompt" else sum(group.pairs for group in step)
        return {
            "batch": batch._replace(order=[]),
            "pairs": row_of[torch.tensor(np.array(sides))],
            "margins": torch.tensor([margin for group in own for margin in group.margins], dtype=torch.float64),
            "comparisons": torch.tensor([group.comparisons for group in own for _ in range(group.pairs)]),
            "rankings": [
                row_of[torch.tensor(group.ranking) + start]
                for start, group in zip(starts, own, strict=False)
                if group.ranking
            ],
            "weight": self.devices / elements if counts else 0.0,
        }


def open_preferences(
    model: PreTrainedModel, rows: Any, config: RewardModelConfig, head_unknown: str | None
) -> Preferences:
    """Return the preferences of a training, laid out as the model allows; log why prompts are not shared.

    Args:
        model: What is trained.
        rows: On disk.
        config: The section of the training.
        head_unknown: Why a reward is more than `score` of the last state; None: it is not.
    """
    noisy = (config.lora is not None and config.lora.dropout) or config.extra.get("disable_dropout") is False
    noise = (
        "their noise (dropout, neftune_noise_alpha) would be one"
        if noisy or config.extra.get("neftune_noise_alpha")
        else None
    )
    shared, lengths = plan_sharing(model, config, head_unknown or noise)
    alone = why_alone(model) if head_unknown else None
    if alone:
        log(f"only completions of one length go together: {alone}")
    return Preferences(rows, config, shared, lengths, 1.0 if alone else LEAST_FILL)
