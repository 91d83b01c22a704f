"""The losses of the reward model: their names, and what each reads. No torch: configurations are checked without it."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from tasks.config.errors import ConfigurationError


class RewardLoss(NamedTuple):
    """What a function `<name>_loss` of tasks/training/reward_losses.py takes, and what an optimizer step counts."""

    element: Literal["pair", "prompt"]
    """What `reward_model.batch_size` counts. prompt: all pairs of a prompt are taken together."""
    reads: tuple[str, ...]
    """Its first parameters: what `PairRewards` has under these names."""
    settings: Mapping[str, str] = {}
    """Its further parameters -> settings of `reward_model`."""


_SIDES = ("chosen", "rejected")
REWARD_LOSSES: dict[str, RewardLoss] = {
    "bradley_terry": RewardLoss("pair", _SIDES),
    "margin": RewardLoss("pair", (*_SIDES, "margins")),
    "centred": RewardLoss("pair", _SIDES, {"coefficient": "centring_coefficient"}),
    "k_comparisons": RewardLoss("prompt", (*_SIDES, "comparisons")),
    "plackett_luce": RewardLoss("prompt", ("rankings",)),
}
"""One line each."""


def check_reward_loss(name: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse a loss that is not known, and a setting of losses that this one does not read.

    Args:
        name: Of the loss.
        given: All settings of the reward model.
        defaults: Their defaults.

    Raises:
        ConfigurationError: Names the loss, or the setting and the loss that reads it.
    """
    if name not in REWARD_LOSSES:
        raise ConfigurationError(f"reward_model.loss = {name!r} must be one of {', '.join(REWARD_LOSSES)}")
    for other, loss in REWARD_LOSSES.items():
        for setting in loss.settings.values():
            if setting not in REWARD_LOSSES[name].settings.values() and given[setting] != defaults[setting]:
                raise ConfigurationError(
                    f"reward_model.{setting} = {given[setting]} is not read by reward_model.loss = {name!r}: leave it "
                    f"at {defaults[setting]}, or take the loss {other}"
                )
