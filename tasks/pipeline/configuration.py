"""A whole run's configuration: every section, each with its defaults."""

from typing import Any

from pydantic import Field

from tasks.config.compute import ComputeConfig
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
