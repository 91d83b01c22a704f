"""A whole run's configuration: every section, each with its defaults."""

import itertools
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from tasks.config.compute import ComputeConfig
from tasks.config.data import DataConfig
from tasks.config.errors import ConfigurationError
from tasks.config.evaluation import EvaluationConfig
from tasks.config.rewards import COMBINED, HELD_OUT, SECTION, Rewards, check_names
from tasks.config.rloo import RlooConfig, Rollouts
from tasks.config.sections import Section
from tasks.config.settings import RewardModelConfig, SamplingConfig, ScoringConfig, SftConfig
from tasks.config.training import DpoConfig
from tasks.monitors.judging import MonitorsConfig
from tasks.selection.combination import members_of
from tasks.selection.strategies import PairsConfig
from tasks.selection.terms import Combination, Term


class Config(Section):
    """A whole run: the parameters of the `rs_dpo` flow."""

    data: DataConfig
    sft: SftConfig
    reward_model: RewardModelConfig = RewardModelConfig()
    rewards: Annotated[Rewards, AfterValidator(check_names)] = Field(default_factory=dict)
    """Rewards beside that of `reward_model`: name -> where it comes from."""
    sampling: SamplingConfig = SamplingConfig()
    scoring: ScoringConfig = ScoringConfig()
    pairs: PairsConfig = PairsConfig()
    dpo: DpoConfig = DpoConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    monitors: MonitorsConfig = MonitorsConfig()
    compute: ComputeConfig = ComputeConfig()
    store: str = Field("./.rsdpo", min_length=1)
    """Where every artifact lives: a folder, `file:///...` or `s3://bucket/prefix`."""

    def sections(self) -> dict[str, Any]:
        """Return the sections by name: the parameters of the flow."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    @property
    def alignment(self) -> DpoConfig | RlooConfig:
        """Return the section of the training that aligns the policy."""
        return self.dpo

    @property
    def reward_models(self) -> dict[str, tuple[RewardModelConfig, int]]:
        """Return the reward models of a run: name -> settings, and the half of the preferences; 0: all of them.

        The members of an ensemble are named `name.1`, `name.2`, ...
        """
        found = {SECTION: (self.reward_model, self.reward_model.halves[0])} if self.has_section_reward else {}
        for name, source in self.rewards.items():
            numbers = ("",) if source.reward_model else (f".{number}" for number in itertools.count(1))
            found |= {f"{name}{number}": (own, 0) for number, own in zip(numbers, source.reward_models, strict=False)}
        half = self.has_section_reward and self.reward_model.held_out
        return found | ({HELD_OUT: (self.reward_model, 2)} if half else {})

    @property
    def has_section_reward(self) -> bool:
        """Tell whether there is the reward model of the section `reward_model`: a ready one, or preferences for it."""
        return self.reward_model.ready_model is not None or self.data.preferences is not None

    @property
    def reward_names(self) -> list[str]:
        """Return the rewards that pairs can be selected by, an ensemble once."""
        return [*([SECTION] if self.has_section_reward else []), *self.rewards]

    @property
    def combination(self) -> Combination:
        """Return how rewards become the one that pairs are selected by.

        Raises:
            ConfigurationError: There are several, and `pairs.rewards` does not say which; or it names an unknown one.
        """
        names, terms = self.reward_names or [SECTION], self.pairs.rewards  # whether there is one is checked elsewhere
        if unknown := terms.keys() - {*names}:
            raise ConfigurationError(
                f"pairs.rewards.{min(unknown)} is no reward of this run: there are {', '.join(names) or 'none'}"
            )
        if not terms and len(names) != 1:
            raise ConfigurationError(
                f"pairs.rewards must say what each of the rewards {', '.join(names)} counts for, or name one, such as "
                f"`pairs: {{rewards: {{{names[-1]}: {{}}}}}}`; the others then evaluate only"
            )
        ensembles = {name for name, source in self.rewards.items() if source.ensemble}
        if alone := [name for name, term in terms.items() if term.uncertainty and name not in ensembles]:
            raise ConfigurationError(
                f"pairs.rewards.{alone[0]}.uncertainty = {terms[alone[0]].uncertainty:g} is that of an ensemble, and "
                f"{alone[0]} is none: leave it out, or name several reward models in rewards.{alone[0]}.ensemble"
            )
        return Combination(rewards=terms or {names[0]: Term()}, combine=self.pairs.combine)

    @property
    def selecting(self) -> list[str]:
        """Return the rewards whose tables pairs are selected from: those that count, each member of an ensemble."""
        return [
            own
            for name in self.combination.rewards
            for own in members_of(name, [*self.reward_models, *self.rewards]) or [name]
        ]

    @property
    def held_out(self) -> tuple[str, ...]:
        """Return the reward that `dpo.keep = best` chooses by, of an ensemble its members; nothing for `last`.

        Raises:
            ConfigurationError: Every reward counts for pairs, or several do not.
        """
        if self.alignment is not self.dpo or self.dpo.keep == "last":
            return ()
        counted = self.combination.rewards
        others = (
            [HELD_OUT] if HELD_OUT in self.reward_models else [own for own in self.reward_names if own not in counted]
        )
        if len(others) != 1:
            raise ConfigurationError(
                "dpo.keep = best chooses by the one reward that pairs are not selected by, and there are "
                f"{', '.join(others) or 'none'}: set reward_model.held_out, or name all but one in pairs.rewards"
            )
        return tuple(members_of(others[0], [*self.reward_models, *self.rewards]))

    @property
    def proxy(self) -> str:
        """Return the name under which an evaluation has the reward that pairs are selected by."""
        return self.selecting[0] if self.combination.as_it_is and len(self.selecting) == 1 else COMBINED


class RlooRun(Config):
    """A whole run of RLOO: the parameters of the `rloo` flow, and sections of the base that it does not read.

    It has no pairs: of `pairs` it reads `truncated`, and nothing of `dpo`.
    """

    rloo: RlooConfig = RlooConfig()

    @property
    def alignment(self) -> DpoConfig | RlooConfig:
        """Return the section of the training that aligns the policy."""
        return self.rloo

    @property
    def rollouts(self) -> Rollouts:
        """Return how completions are drawn and scored in the training: as the other sections say."""
        drawn = {name: getattr(self.sampling, name) for name in ("temperature", "top_p", "top_k", "max_new_tokens")}
        return Rollouts(**drawn, scoring=self.scoring, truncated=self.pairs.truncated)

    def sections(self) -> dict[str, Any]:
        """Return the sections by name: the parameters of the flow."""
        return {name: value for name, value in super().sections().items() if name not in ("dpo", "rewards")}

    @model_validator(mode="after")
    def _goes_with_rloo(self) -> Self:
        refused = {
            "data.pilot": (self.data.pilot is not None, "there are no pairs to predict"),
            "pairs.strategy": (self.pairs.strategy == "annotation", "RLOO trains on completions of its own"),
            "pairs.truncated": (self.pairs.truncated == "never_chosen", "RLOO chooses none: set keep or drop"),
            "rewards": (bool(self.rewards), "RLOO trains on one reward model"),
            "sampling.stop": (bool(self.sampling.stop), "RLOO ends a completion at the end of a turn alone"),
        }
        for name, (is_set, reason) in refused.items():
            if is_set:
                section, _, field = name.partition(".")
                value = getattr(getattr(self, section), field) if field else getattr(self, section)
                raise ConfigurationError(f"{name} = {value!r} cannot be with RLOO: {reason}")
        return self
