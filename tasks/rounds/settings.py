"""How rounds follow each other."""

from typing import Any, Literal

from pydantic import Field

from tasks.config.sections import Section


class RoundsConfig(Section):
    """Rounds of RS-DPO: policy t samples, pairs are selected from its scored completions, DPO gives policy t + 1."""

    base: str = Field(min_length=1)
    """Configuration file of a round."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Overrides of it, `section.field: value`."""
    rounds: int = Field(3, ge=1, le=100)
    """Rounds at most."""
    prompts: Literal["all", "share"] = "all"
    """all: every round samples all prompts. share: each samples its own share of them, chosen by hash."""
    reference: Literal["fixed", "moving"] = "moving"
    """What DPO keeps close to: the SFT policy in every round, or the policy that the round begins with."""
    reward_model: Literal["fixed", "refreshed"] = "fixed"
    """fixed: trained once. refreshed: each round trains it anew, on gold labels of its own policy's completions
    (`data.preferences: gold`), or on the preferences as they are when the round begins."""
    keep_pairs: bool = False
    """Train on the pairs of earlier rounds too, each with the completions of its own round."""
    patience: int = Field(1, ge=1)
    """Rounds in a row whose held-out reward is no higher than the best so far, after which the loop ends."""
    max_kl: float | None = Field(None, gt=0)
    """KL from the SFT policy, nats a completion, beyond which a round does not count and the loop ends."""
    reward: str | None = None
    """By which reward rounds are compared; None: `gold` where there is one, else `reward_model`."""
