"""The losses of DPO: their names, and what each reads. No torch, so that a configuration is checked without it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tasks.config.errors import ConfigurationError

TRL_LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)
"""TRL's losses of one pair at a time; `aot` and `aot_unpaired` sort the pairs of a batch."""
SMOOTHED_LOSSES = ("sigmoid", "robust", "exo_pair")
"""Losses that read `dpo.label_smoothing`."""
NOT_OF_PAIRS = {
    "sft": "a mean over the tokens of all chosen completions: take sft_sequence",
    "kto": "a mean over completions, each of which counts once in however many pairs it is: leave it at pair",
    "hinge": "into which TRL 1.16 multiplies weights in place, where its gradient needs what was there: take sigmoid",
}
"""Losses whose pairs cannot be weighed -> why not, and what to do."""
Scale = Literal["log", "linear"]
Distance = Literal["backward", "forward", "squared"]
PairWeights = Literal["pair", "prompt"]


class OwnLoss(NamedTuple):
    """What a function `<name>_loss` of tasks/training/losses.py takes."""

    reads: tuple[str, ...]
    """Its first parameters: what `PairValues` has under these names."""
    settings: Mapping[str, str] = {}
    """Its further parameters -> settings of `dpo`."""


_MEANS = ("chosen_mean_logps", "rejected_mean_logps")
OWN_LOSSES: dict[str, OwnLoss] = {
    "simpo": OwnLoss(_MEANS, {"beta": "simpo_beta", "gamma": "simpo_gamma"}),
    "orpo": OwnLoss(_MEANS, {"weight": "orpo_weight"}),
    "sft_sequence": OwnLoss(("chosen_mean_logps",)),
    "odpo": OwnLoss(("margins", "reward_gaps"), {"alpha": "odpo_alpha", "scale": "odpo_scale"}),
    "rpo": OwnLoss(("margins", "reward_gaps"), {"eta": "rpo_eta", "distance": "rpo_distance"}),
    "rebel": OwnLoss(("margins", "reward_gaps")),
    "kto": OwnLoss(
        ("rewards", "reference_reward", "shares"),
        {"desirable_weight": "kto_desirable_weight", "undesirable_weight": "kto_undesirable_weight"},
    ),
}
"""Losses that TRL's trainer of pairs does not have, one line each."""
_OF_REFERENCE = frozenset({"margins", "rewards"})
"""What is beta times a log-ratio to the reference."""


def needs_reference(losses: Sequence[str]) -> bool:
    """Tell whether any of the losses reads log-probabilities under the reference, and so `dpo.beta`.

    TRL's `sft` reads neither. By itself it has them all the same: its log-ratios are in the record of such a training.
    """
    of_reference = [name for name in losses if not (name in OWN_LOSSES or name == "sft")]
    of_reference += [name for name in losses if name in OWN_LOSSES and _OF_REFERENCE & {*OWN_LOSSES[name].reads}]
    return bool(of_reference) or set(losses) == {"sft"}


def needs(losses: Sequence[str], value: str) -> bool:
    """Tell whether any of the losses reads a value of pairs."""
    return any(value in OWN_LOSSES[name].reads for name in losses if name in OWN_LOSSES)


def check_names(losses: Sequence[str], weights: Sequence[float] | None) -> None:
    """Refuse losses that are not known, and weights that are not theirs.

    Raises:
        ConfigurationError: Names the loss or the weights.
    """
    if unknown := [name for name in losses if name not in (*TRL_LOSSES, *OWN_LOSSES)]:
        raise ConfigurationError(
            f"dpo.loss_type = {unknown[0]!r} must be one of {', '.join((*TRL_LOSSES, *OWN_LOSSES))}: a loss must be a "
            "pair's own, whatever else is in its batch (`aot` and `aot_unpaired` sort the batch)"
        )
    if weights is not None and len(weights) != len(losses):
        raise ConfigurationError(f"dpo.loss_weights = {weights} must be one weight a loss of {losses}")
    if weights is not None and not any(weights):
        raise ConfigurationError(f"dpo.loss_weights = {weights} must have one above 0: nothing is trained")


def check_settings(losses: Sequence[str], given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse a setting of single losses that none of the losses reads.

    Args:
        losses: The losses.
        given: All settings of DPO.
        defaults: Their defaults.

    Raises:
        ConfigurationError: Names the setting, and the losses that read it.
    """
    read = {setting for name in losses if name in OWN_LOSSES for setting in OWN_LOSSES[name].settings.values()}
    for name, own in OWN_LOSSES.items():
        for setting in own.settings.values():
            if setting not in read and given[setting] != defaults[setting]:
                raise ConfigurationError(
                    f"dpo.{setting} = {given[setting]} is read by none of {tuple(losses)}: leave it at "
                    f"{defaults[setting]}, or take dpo.loss_type {name}"
                )
    if not needs_reference(losses) and given["beta"] != defaults["beta"]:
        raise ConfigurationError(
            f"dpo.beta = {given['beta']:g} is read by none of {tuple(losses)}, which have no reference: leave it at "
            f"{defaults['beta']:g}; SimPO's is dpo.simpo_beta, ORPO's dpo.orpo_weight"
        )


def check_weights(losses: Sequence[str], weights: PairWeights) -> None:
    """Refuse weights of pairs where a loss cannot have any.

    Raises:
        ConfigurationError: Names the loss.
    """
    if weights == "prompt" and (wrong := [name for name in losses if name in NOT_OF_PAIRS]):
        raise ConfigurationError(
            f"dpo.weight_pairs = prompt cannot be set with dpo.loss_type = {wrong[0]!r}, {NOT_OF_PAIRS[wrong[0]]}"
        )


def check_smoothing(losses: Sequence[str], smoothing: float, extra: Mapping[str, Any]) -> None:
    """Refuse a probability of wrong labels that no loss reads, or that a loss lacks.

    Raises:
        ConfigurationError: Names what does not go together.
    """
    if smoothing and not set(losses) & set(SMOOTHED_LOSSES):
        raise ConfigurationError(
            f"dpo.label_smoothing = {smoothing:g} is read by none of {losses}: leave it at 0, or "
            f"take one of {', '.join(SMOOTHED_LOSSES)}"
        )
    if "exo_pair" in losses and not smoothing:
        raise ConfigurationError(
            "dpo.loss_type = 'exo_pair' needs dpo.label_smoothing above 0: its paper (arXiv:2402.00856) takes 1e-3"
        )
    changed = sorted(extra.keys() & {"f_divergence_type", "use_weighting"})
    if changed and smoothing and "sigmoid" in losses:
        raise ConfigurationError(
            f"dpo.extra.{changed[0]} cannot be set with dpo.label_smoothing and loss_type sigmoid: cDPO has neither"
        )
