"""The strategies by name, the `pairs` section that their settings make, and what holds for all of them.

A strategy is a pure function of candidates and its settings, in a file of its own, and a line here. A control is one of
what the threshold rule keeps, too.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import numpy as np
from pydantic import Field, create_model

from tasks.selection.annotation import annotated_pairs
from tasks.selection.best_overall import best_overall_pairs, by_reward
from tasks.selection.best_vs_low import best_vs_low_pairs
from tasks.selection.best_vs_random import best_vs_random_pairs
from tasks.selection.best_vs_worst import best_vs_worst_pairs
from tasks.selection.caps import random_subset, widest
from tasks.selection.draws import pair_draws, prompt_seeds
from tasks.selection.filters import PassRate, Rip, left_out
from tasks.selection.pairs import Candidates, PairIndices, SeededSettings, StrategySettings, admissible
from tasks.selection.pareto import pareto_pairs
from tasks.selection.random_control import random_control
from tasks.selection.shuffled_control import shuffled_control
from tasks.selection.statistical_rejection import statistical_rejection_pairs
from tasks.selection.terms import Term
from tasks.selection.threshold import ThresholdSettings, threshold_pairs

STRATEGIES: dict[str, Callable[..., PairIndices]] = {
    "threshold": threshold_pairs,
    "best_vs_worst": best_vs_worst_pairs,
    "best_vs_random": best_vs_random_pairs,
    "best_vs_low": best_vs_low_pairs,
    "best_overall": best_overall_pairs,
    "statistical_rejection": statistical_rejection_pairs,
    "annotation": annotated_pairs,
    "pareto": pareto_pairs,
}
"""Name -> function of `candidates` and `settings`. The settings' fields are fields of the section `pairs`."""
RANKED: dict[str, Callable[[PairIndices, Candidates, np.ndarray], np.ndarray]] = {"best_overall": by_reward}
"""Name -> function of pairs, their candidates and their draws, whose numbers `max_pairs` chooses by in their place."""
CONTROLS: dict[str, Callable[..., PairIndices]] = {
    "random": random_control,
    "shuffled": shuffled_control,
}
"""Name -> function of `candidates`, the pairs that the threshold rule and the caps keep of them, and `settings`."""


def settings_of(name: str, strategy: Callable[..., PairIndices]) -> type[StrategySettings]:
    """Return the class of a strategy's settings.

    Raises:
        TypeError: The strategy has no argument `settings` of such a class.
    """
    kind = get_type_hints(strategy).get("settings")
    if not (isinstance(kind, type) and issubclass(kind, StrategySettings)):
        raise TypeError(f"strategy {name}: the function needs an argument `settings: ...Settings`, not {kind}")
    return kind


def bases_of(settings: Collection[type[StrategySettings]]) -> tuple[type[StrategySettings], ...]:
    """Return the classes whose fields make one section: each once, without those that another one derives from.

    Raises:
        TypeError: Two of them have a field of the same name: one default would take the other's place.
    """
    bases = [
        own
        for own in dict.fromkeys(settings)
        if not any(other is not own and issubclass(other, own) for other in settings)
    ]
    owners: dict[str, type[StrategySettings]] = {}
    for own in bases:
        for field in own.model_fields:
            defined = next(each for each in own.__mro__ if field in inspect.get_annotations(each))
            if owners.setdefault(field, defined) is not defined:
                raise TypeError(f"{own.__name__}.{field} is a field of {owners[field].__name__} too: take another name")
    return tuple(bases)


SETTINGS: Mapping[str, type[StrategySettings]] = {
    name: settings_of(name, strategy) for name, strategy in (STRATEGIES | CONTROLS).items()
}
READ_BY_ALL = frozenset({"strategy", "tau"})
"""Fields that count with every strategy: preference_prob of any pair is sigma(reward_gap / tau)."""
if TYPE_CHECKING:

    class _Strategies(SeededSettings, ThresholdSettings):
        strategy: str = "threshold"

else:
    _help = " ".join(
        f"{name}: {(inspect.getdoc(settings) or '').splitlines()[0]}" for name, settings in SETTINGS.items()
    )
    _strategy = (Literal[tuple(SETTINGS)], Field("threshold", description=_help))
    _Strategies = create_model("_Strategies", __base__=bases_of(list(SETTINGS.values())), strategy=_strategy)


class PairsConfig(_Strategies):
    """Which pairs of completions are trained on."""

    rewards: dict[str, Term] = Field(default_factory=dict)
    """Name of a reward -> what it counts for. Needed where there are several; the others evaluate only."""
    combine: Literal["sum", "min", "product"] = "sum"
    """How the rewards r that have a weight w become one. sum: of all w r. min: the least w r. product: of all r^w."""

    max_pairs_per_prompt: int | None = Field(None, ge=1)
    """Keep so many pairs of a prompt that has more."""
    cap: Literal["random", "widest"] = "random"
    """Which pairs `max_pairs_per_prompt` keeps. random: any, drawn with the seed. widest: those with the widest reward
    gap, which drops the hard pairs that the threshold keeps on purpose."""
    max_pairs: int | None = Field(None, ge=1)
    """Keep so many pairs in all where there are more: any, drawn with the seed; with `best_overall` those with the
    highest chosen rewards. Fewer are a part of more."""
    truncated: Literal["keep", "drop", "never_chosen"] = "drop"
    """What to do with completions cut at max_new_tokens: their reward is for half an answer."""
    rip: Rip = Rip()
    """Leave out prompts by their best and worst completion."""
    pass_rate: PassRate | None = None
    """Leave out prompts by the share of their completions that pass. Null: none."""

    def key_fields(self, only: Collection[str] | None = None) -> dict[str, Any]:
        """Return the fields that decide the pairs: what the strategy and the cap read."""
        own, of_strategies = SETTINGS[self.strategy], {f for kind in SETTINGS.values() for f in kind.model_fields}
        unread = (of_strategies | {"cap"} | own.unread) - READ_BY_ALL - own.model_fields.keys() - self._read_by_caps()
        return {name: value for name, value in super().key_fields(only).items() if name not in unread}

    def _read_by_caps(self) -> set[str]:
        drawn = self.max_pairs is not None or (self.max_pairs_per_prompt is not None and self.cap == "random")
        return ({"cap"} if self.max_pairs_per_prompt is not None else set()) | ({"seed"} if drawn else set())

    @property
    def filters_prompts(self) -> bool:
        """Tell whether prompts may be left out."""
        return self.rip != Rip() or self.pass_rate is not None

    def explain_none(self) -> tuple[str, str]:
        """Return what the strategy asks for, and what to change where no pair has it."""
        return SETTINGS[self.strategy].explain_none(self)


def admitted(candidates: Candidates, config: PairsConfig) -> Candidates:
    """Return the candidates as the truncation rule leaves them to the strategy."""
    rule = "keep" if "truncated" in SETTINGS[config.strategy].unread else config.truncated
    cut = candidates.truncated & (rule != "keep")
    rewards = np.where(cut, np.nan, candidates.rewards) if rule == "drop" else candidates.rewards
    return candidates._replace(rewards=rewards, may_be_chosen=candidates.may_be_chosen & ~cut)


def select(candidates: Candidates, config: PairsConfig, below: np.uint64 | None = None) -> PairIndices:
    """Return the pairs that strategy, truncation rule, filters and caps leave; sides of equal text are no pair.

    Args:
        candidates: The completions of some prompts.
        config: What is configured.
        below: The bound of the draws (`max_pairs.py`), where `max_pairs` leaves some out.
    """
    seen = admitted(candidates, config)
    kept = _kept(seen, config)
    if below is not None:
        kept = kept.where(_draws(kept, seen, config) < below)
    control = CONTROLS.get(config.strategy)
    return kept if control is None else control(seen, kept, config)


def draws(candidates: Candidates, config: PairsConfig) -> np.ndarray:
    """Return the number by which `max_pairs` chooses, (pairs,) uint64, of each pair that all else leaves.

    A control's pairs are chosen among those that it is made of, so that it has as many of each prompt as the threshold.
    """
    seen = admitted(candidates, config)
    return _draws(_kept(seen, config), seen, config)


def _kept(seen: Candidates, config: PairsConfig) -> PairIndices:
    """Return the pairs before `max_pairs`; of a control, those that it is made of."""
    found = STRATEGIES.get(config.strategy, threshold_pairs)(seen, config)
    stays = admissible(found, seen)
    for out in left_out(seen, config.rip, config.pass_rate).values():
        stays &= ~out[found.row]
    return capped(found.where(stays), seen, config)


def _draws(pairs: PairIndices, candidates: Candidates, config: PairsConfig) -> np.ndarray:
    drawn = pair_draws(prompt_seeds(config.seed, candidates.prompt_ids.to_pylist(), "max_pairs"), *pairs)
    rank = RANKED.get(config.strategy)
    return drawn if rank is None else rank(pairs, candidates, drawn)


def capped(pairs: PairIndices, candidates: Candidates, config: PairsConfig) -> PairIndices:
    """Return at most `max_pairs_per_prompt` pairs a row, chosen as `cap` says."""
    limit = config.max_pairs_per_prompt
    if limit is None or pairs.row.size == 0:
        return pairs
    if config.cap == "random":
        seeds = prompt_seeds(config.seed, candidates.prompt_ids.to_pylist())
        return pairs.where(random_subset(*pairs, seeds, limit))
    gap = candidates.rewards[pairs.row, pairs.chosen] - candidates.rewards[pairs.row, pairs.rejected]
    return pairs.where(widest(*pairs, gap, limit))
