"""TRL's RLOO trainer on prompts, ends of turns and rewards as every other stage has them.

Imports torch and TRL, so import it inside functions only.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather, gather_object
from transformers import PreTrainedTokenizerBase, TrainerCallback

from tasks.config.errors import ConfigurationError
from tasks.data.conversations import Messages
from tasks.lm.tokens import encode_prompt
from tasks.rewards.reward_model import RewardModel
from tasks.sampling.samples import cut
from tasks.training.dpo_examples import sequence_id
from tasks.training.drawn import Drawn, Rollout
from tasks.training.rloo_setup import RlooJob

with warnings.catch_warnings(action="ignore", category=UserWarning):  # of vLLM's version, which draws nothing here
    from trl import RLOOTrainer


class RolloutRewards:
    """r(x, y) of what the policy draws: its text as sampling has it, and its reward as scoring has it."""

    __name__ = "reward_model"  # what TRL calls it in the log

    def __init__(self, config: RlooJob, tokenizer: PreTrainedTokenizerBase, end_ids: list[int]) -> None:
        """Load the reward model.

        Args:
            config: The training.
            tokenizer: The policy's.
            end_ids: Tokens that end a completion.
        """
        self.rule, self.tokenizer, self.end_ids = config.rollouts.truncated, tokenizer, set(end_ids)
        self.model = RewardModel(Path(config.reward_model), config.rollouts.scoring, config.trust_reward_model)

    def __call__(self, prompts: list[Messages], completion_ids: list[list[int]]) -> list[Rollout]:
        """Return what was drawn, with its rewards: none for what is dropped, or longer than the model's context.

        Args:
            prompts: The conversation of each completion.
            completion_ids: Each up to the token that ends it, or cut.

        Raises:
            ConfigurationError: A reward is no number.
        """
        ids = [encode_prompt(self.tokenizer, messages) for messages in prompts]
        both = list(zip(ids, completion_ids, strict=True))
        samples = [cut(self.tokenizer, *own, self.end_ids, ()) for own in both]
        rewards = self.model.score_what_fits(prompts, [sample.completion for sample in samples])
        if broken := int((~np.isfinite(rewards.compressed())).sum()):
            raise ConfigurationError(
                f"{broken} rewards are NaN or infinite: the reward model is broken, or the policy's completions are; "
                "name another reward model, or lower rloo.learning_rate"
            )
        truncated = [sample.finish_reason == "length" for sample in samples]
        dropped = np.ma.getmaskarray(rewards) | (np.array(truncated) & (self.rule == "drop"))
        return [
            Rollout(sequence_id(prompt, tuple(own)), len(own), is_cut, None if no_reward else float(reward))
            for (prompt, own), is_cut, no_reward, reward in zip(both, truncated, dropped, rewards.data, strict=True)
        ]


class OnlineTrainer(RLOOTrainer):
    """TRL's, apart from what it reads and how it scores."""

    def __init__(self, rewards: RolloutRewards, drawn: Drawn, **arguments: Any) -> None:
        """Take what scores and what counts, and the arguments of TRL's trainer."""
        super().__init__(reward_funcs=rewards, **arguments)
        self.rewards, self.drawn = rewards, drawn
        self.eos_token_ids = sorted(rewards.end_ids)

    def _tokenize_prompts(self, prompts: list[Messages]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [encode_prompt(self.processing_class, messages) for messages in prompts], None, {}

    def _calculate_rewards(
        self, inputs: Any, prompts: list[Messages], completions: Any, completion_ids: list[list[int]]
    ) -> torch.Tensor:
        """Return (completions, 1) rewards of all devices; NaN: none, of which TRL's own method warns one by one."""
        rollouts = self.rewards(prompts, completion_ids)
        self.drawn.add(gather_object(rollouts))
        rewards = [np.nan if each.reward is None else each.reward for each in rollouts]
        return gather(torch.tensor(rewards, dtype=torch.float32, device=self.accelerator.device)[:, None])


class KeepDrawn(TrainerCallback):
    """Puts what has been drawn into each checkpoint; stands before whatever copies them."""

    def __init__(self, drawn: Drawn) -> None:
        """Take what counts."""
        self.drawn = drawn

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the counts into the folder that the trainer has just written."""
        if state.is_world_process_zero:
            self.drawn.save(Path(args.output_dir) / f"checkpoint-{state.global_step}")
