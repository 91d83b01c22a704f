"""What each round has given, and whether another one is worth it. Pure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from tasks.rounds.settings import RoundsConfig
from tasks.store.artifacts import Artifact


class Round(NamedTuple):
    """One round: how its policy does on the held-out prompts."""

    number: int
    """From 1."""
    policy: Artifact
    reward: float
    """Mean reward."""
    before: float
    """Mean reward of the SFT policy, on the same prompts with the same seed."""
    kl: float
    """KL from the SFT policy, nats a completion."""
    win_rate: float | None
    """Over the SFT policy."""
    pairs: int
    """Pairs that it was trained on."""
    length: float
    """Mean tokens of a completion."""
    made: dict[str, Artifact]
    """What the round has made, and the preferences that its reward model was trained on, by name."""
    gains: Mapping[str, float] = MappingProxyType({})
    """Every reward that the policies were given: its gain in standard deviations of the SFT policy's rewards."""

    @property
    def gain(self) -> float:
        """Return what the reward is above the SFT policy's: each round draws with its own seed."""
        return self.reward - self.before


def read_round(number: int, made: dict[str, Artifact], pairs: int, by: str) -> Round:
    """Return a round from its evaluation against the SFT policy, by one of its rewards.

    Args:
        number: From 1.
        made: What it has made.
        pairs: Pairs that it was trained on.
        by: The reward's name.
    """
    evaluation = made["evaluation"].stats
    own, before = evaluation["policies"]["aligned"], evaluation["policies"][evaluation["reference"]]
    win = own["win_rates"][by]
    return Round(
        number,
        made["aligned"],
        own["rewards"][by]["mean"],
        before["rewards"][by]["mean"],
        own["divergence"]["kl_sequence"],
        None if win is None else win["win_rate"],
        pairs,
        own["mean_tokens"],
        made,
        {name: gain for name in own["rewards"] if (gain := _gain(own, before, name)) is not None},
    )


def _gain(own: Mapping[str, Any], before: Mapping[str, Any], name: str) -> float | None:
    start, end = before["rewards"][name], own["rewards"][name]
    return (end["mean"] - start["mean"]) / start["std"] if start["std"] and end["mean"] is not None else None


def best_round(rounds: Sequence[Round], config: RoundsConfig) -> Round | None:
    """Return the round with the highest gain among those within `max_kl`; the first of equal ones; None: no such."""
    within = [each for each in rounds if config.max_kl is None or each.kl <= config.max_kl]
    return max(within, key=lambda each: each.gain, default=None)


def why_ended(rounds: Sequence[Round], config: RoundsConfig) -> str | None:
    """Return why no further round is worth it, or None."""
    last = rounds[-1]
    if config.max_kl is not None and last.kl > config.max_kl:
        return f"round {last.number} is {last.kl:.1f} nats from the SFT policy, beyond max_kl = {config.max_kl:g}"
    best = best_round(rounds, config)
    assert best is not None  # the last one is within
    if last.number - best.number >= config.patience:
        return f"no round since {best.number} has gained more, and patience = {config.patience}"
    if last.number >= config.rounds:
        return f"rounds = {config.rounds} are done"
    return None
