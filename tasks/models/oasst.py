"""The reward models of OpenAssistant: GPT-NeoX with a head `out_proj`, which transformers does not know.

Imports torch, so import it inside functions only.
"""

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, GPTNeoXConfig, GPTNeoXModel
from transformers.modeling_outputs import SequenceClassifierOutputWithPast
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXPreTrainedModel


class GPTNeoXRewardModelConfig(GPTNeoXConfig):
    """GPT-NeoX's configuration, and how a reward is read from the states."""

    model_type = "gpt_neox_reward_model"
    pooling: str = "last"
    """`last`: the last token's state. `mean`: the mean of all tokens' states."""


class GPTNeoXRewardModel(GPTNeoXPreTrainedModel):
    """Reads a reward from GPT-NeoX's states: r(x, y) = out_proj(pooled states)."""

    config_class = GPTNeoXRewardModelConfig

    def __init__(self, config: GPTNeoXRewardModelConfig) -> None:
        """Name the parts as the stored weights do."""
        super().__init__(config)
        self.gpt_neox = GPTNeoXModel(config)
        self.out_proj = torch.nn.Linear(config.hidden_size, 1)
        self.post_init()

    @property
    def score(self) -> torch.nn.Module:
        """Return the head under the name that transformers gives it."""
        return self.out_proj

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> SequenceClassifierOutputWithPast:
        """Return the rewards as `logits`, (rows, 1).

        Args:
            input_ids: (rows, width) token ids.
            attention_mask: (rows, width) 1 on tokens; None: everywhere.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = self.gpt_neox(input_ids, attention_mask=mask).last_hidden_state
        if self.config.pooling == "mean":
            pooled = (states.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        else:
            places = torch.arange(mask.shape[1], device=mask.device)
            pooled = states[torch.arange(len(states), device=mask.device), (places * mask).argmax(1)]
        return SequenceClassifierOutputWithPast(logits=self.out_proj(pooled.to(self.out_proj.weight.dtype)))


def register() -> None:
    """Let transformers load such a folder, without code of its own."""
    AutoConfig.register(GPTNeoXRewardModelConfig.model_type, GPTNeoXRewardModelConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(GPTNeoXRewardModelConfig, GPTNeoXRewardModel, exist_ok=True)
