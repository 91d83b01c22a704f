"""TRL's `RewardTrainer`, made to forward each unique completion once, and its prompt once for all of a step's.

Imports torch and TRL, so import it inside functions only.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from transformers import PreTrainedModel
from trl import RewardTrainer

from tasks.config.reward_losses import REWARD_LOSSES
from tasks.config.settings import RewardModelConfig
from tasks.lm.prefix_forward import take_rows, wanted_states
from tasks.training import reward_losses
from tasks.training.reward_losses import PairRewards
from tasks.training.step_trainer import TakesSteps


class StepRewardTrainer(TakesSteps, RewardTrainer):
    """A reward model on the preferences of each step: the mean of a loss over pairs, or over prompts."""

    def __init__(self, config: RewardModelConfig, head_unknown: bool, **arguments: Any) -> None:
        """Take TRL's arguments; a collator of `Preferences`.

        Args:
            config: The section of the training.
            head_unknown: A reward is more than `score` of the last state, so that the model itself is to say it.
            **arguments: Of TRL's trainer.
        """
        super().__init__(**arguments)
        self.loss, self.reads = reward_loss(config), REWARD_LOSSES[config.loss].reads
        inner = getattr(self.model, "get_base_model", lambda: self.model)()
        reward_batches(inner, None if head_unknown else inner.score)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return a pass's part of the step's loss."""
        rewards = model(batch=inputs["batch"])
        values = pair_rewards(rewards, inputs)
        self._log_rewards(rewards, values, inputs)
        loss = self.loss(*(getattr(values, name) for name in self.reads)).sum() * inputs["weight"]
        return (loss, rewards) if return_outputs else loss

    def _log_rewards(self, rewards: torch.Tensor, values: PairRewards, inputs: dict[str, Any]) -> None:
        """Note what TRL's trainer does: means over the pairs of all devices, and their range."""
        gaps, rewards = (values.chosen - values.rejected).detach(), rewards.detach()
        sides = torch.stack([values.chosen, values.rejected]).detach()
        counts = float(inputs["weight"] > 0)
        sums = torch.stack([torch.ones_like(gaps).sum(), (gaps > 0).sum(), gaps.sum(), sides.sum() / 2]) * counts
        pairs, right, margins, means = self.accelerator.gather(sums.double()).view(-1, 4).sum(0).tolist()
        tokens = torch.tensor([inputs["batch"].tokens * counts], device=rewards.device)
        self._total_train_tokens += int(self.accelerator.gather(tokens).sum())
        noted = self._metrics["train"]
        noted["num_tokens"] = [self._total_train_tokens]
        noted["min_reward"].append(self.accelerator.gather(rewards.min()).min().item())
        noted["mean_reward"].append(means / pairs)
        noted["max_reward"].append(self.accelerator.gather(rewards.max()).max().item())
        noted["accuracy"].append(right / pairs)
        noted["margin"].append(margins / pairs)


def reward_loss(config: RewardModelConfig) -> Callable[..., torch.Tensor]:
    """Return the loss that a configuration names, with its settings."""
    function = getattr(reward_losses, f"{config.loss}_loss")
    settings = {parameter: getattr(config, field) for parameter, field in REWARD_LOSSES[config.loss].settings.items()}
    return lambda *values: function(*values, **settings)


def pair_rewards(rewards: torch.Tensor, inputs: dict[str, Any]) -> PairRewards:
    """Return what losses read.

    Args:
        rewards: (completions,) of the rows of a pass.
        inputs: The pass, as laid out.
    """
    chosen, rejected = take_rows(rewards, inputs["pairs"].flatten()).chunk(2)
    rankings = [take_rows(rewards, rows) for rows in inputs["rankings"]]
    return PairRewards(chosen, rejected, inputs["margins"].to(rewards), inputs["comparisons"].to(rewards), rankings)


def reward_batches(model: PreTrainedModel, head: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
    """Let a model take a `batch` and return the reward of each of its rows, (rows,).

    Args:
        model: For sequence classification, with one label.
        head: What makes a reward of the last token's state; None: the model itself does, of whole sequences.
    """
    plain, pad = model.forward, model.config.get_text_config().pad_token_id

    def forward(self: PreTrainedModel, *args: Any, batch: Any = None, **kwargs: Any) -> Any:
        if batch is None:
            return plain(*args, **kwargs)
        if head is not None:
            return head(wanted_states(self.base_model, batch))[:, 0]
        buckets = [bucket for part in batch.parts for bucket in part.buckets]
        inputs = [(bucket.ids.masked_fill(bucket.mask == 0, pad), bucket.mask) for bucket in buckets]
        return torch.cat([plain(input_ids=ids, attention_mask=mask).logits[:, 0] for ids, mask in inputs])

    model.forward = MethodType(forward, model)
