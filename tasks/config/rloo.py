"""The settings of RLOO, the on-policy training that comparisons have beside RS-DPO."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from tasks.config.errors import ConfigurationError
from tasks.config.sections import Section
from tasks.config.settings import MOST_COMPLETIONS, ScoringConfig
from tasks.config.training import FixedBatches, Lora


class RlooConfig(FixedBatches):
    """RLOO (arXiv:2402.14740) on the reward model, against the SFT policy.

    An optimizer step draws completions from the policy as it is by then, as `sampling` says. A completion's advantage
    is its reward less the mean of the other completions of its prompt.
    """

    section: ClassVar[str] = "rloo"

    epochs: float = Field(1.0, gt=0)
    """Passes over the prompts."""
    batch_size: int = Field(64, ge=1)
    """Completions an optimizer step, over all devices and accumulation: those of `batch_size` / `k` prompts."""
    max_length: int = Field(1024, ge=8)
    """Longest prompt plus completion in tokens; prompts that leave no room for `sampling.max_new_tokens` are dropped,
    and counted."""
    k: int = Field(4, ge=2, le=MOST_COMPLETIONS)
    """Completions a prompt and optimizer step (paper: 2 and 4)."""
    beta: float = Field(0.05, ge=0)
    """What a nat of log pi(y|x)/pi_SFT(y|x) costs, in units of reward. 0: nothing, and no reference is loaded."""
    devices: int = Field(1, ge=1)
    """Devices to train on; more than one starts `torchrun`. Each draws with a seed of its own."""
    snapshots: int = Field(0, ge=0, le=100)
    """Models kept along the training at even distances, the last one apart, and compared like it: the curve of reward
    against KL. With `lora` they are adapters."""
    lora: Lora | None = Lora()
    """Adapters instead of all weights."""

    @property
    def prompts_per_step(self) -> int:
        """Return the prompts of an optimizer step."""
        return self.batch_size // self.k

    @model_validator(mode="after")
    def _steps_take_whole_prompts(self) -> Self:
        if self.batch_size % self.k:
            raise ConfigurationError(
                f"rloo.batch_size = {self.batch_size} must be a multiple of rloo.k = {self.k}: an optimizer step takes "
                "all completions of a prompt"
            )
        return self

    @model_validator(mode="after")
    def _no_dropout(self) -> Self:
        if self.lora is not None and self.lora.dropout:
            raise ConfigurationError(
                f"rloo.lora.dropout = {self.lora.dropout} must be 0: a completion's log-probability is that of the "
                "policy which drew it, without dropout"
            )
        return self


class Rollouts(Section):
    """How the completions that a policy is trained on are drawn and scored: as RS-DPO's are."""

    temperature: float = 1.0
    """As `sampling.temperature`; the log-probabilities of the training are of the same one."""
    top_p: float = 1.0
    """As `sampling.top_p`; the log-probabilities of the training are over the whole vocabulary all the same."""
    top_k: int = 0
    """As `sampling.top_k`; likewise."""
    max_new_tokens: int = 256
    """As `sampling.max_new_tokens`."""
    scoring: ScoringConfig = ScoringConfig()
    """As `scoring`."""
    truncated: Literal["keep", "drop"] = "drop"
    """As `pairs.truncated`. drop: truncated completions teach nothing, and count in no mean of the others."""
