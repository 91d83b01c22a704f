"""A whole run's configuration: every section, each with its defaults."""

from typing import Any, Self

from pydantic import Field, model_validator

from tasks.config.compute import ComputeConfig
from tasks.config.errors import ConfigurationError
from tasks.config.rloo import RlooConfig, Rollouts
from tasks.config.sections import Section
from tasks.config.settings import (
    DataConfig,
    EvaluationConfig,
    RewardModelConfig,
    SamplingConfig,
    ScoringConfig,
    SftConfig,
)
from tasks.config.training import DpoConfig
from tasks.monitors.judging import MonitorsConfig
from tasks.selection.strategies import PairsConfig


class Config(Section):
    """A whole run: the parameters of the `rs_dpo` flow."""

    data: DataConfig
    sft: SftConfig
    reward_model: RewardModelConfig = RewardModelConfig()
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
        return {name: value for name, value in super().sections().items() if name != "dpo"}

    @model_validator(mode="after")
    def _goes_with_rloo(self) -> Self:
        refused = {
            "data.pilot": (self.data.pilot is not None, "there are no pairs to predict"),
            "pairs.strategy": (self.pairs.strategy == "annotation", "RLOO trains on completions of its own"),
            "pairs.truncated": (self.pairs.truncated == "never_chosen", "RLOO chooses none: set keep or drop"),
            "sampling.stop": (bool(self.sampling.stop), "RLOO ends a completion at the end of a turn alone"),
        }
        for name, (is_set, reason) in refused.items():
            if is_set:
                section, _, field = name.partition(".")
                value = getattr(getattr(self, section), field)
                raise ConfigurationError(f"{name} = {value!r} cannot be with RLOO: {reason}")
        return self
