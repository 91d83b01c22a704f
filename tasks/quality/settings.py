"""What is judged, and on which sets: the configuration of `flows.judge_rewards`."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tasks.config.errors import ConfigurationError
from tasks.config.rewards import OwnRewardModel, Rewards, check_names
from tasks.config.sections import DataSource, Section
from tasks.config.settings import ScoringConfig


class AnswerSet(Section):
    """Prompts and completions of which something is known."""

    source: DataSource
    """Where its rows are."""
    max_rows: int | None = Field(None, ge=1)
    """Judge on the first so many usable rows."""
    max_bad_fraction: float = Field(0.01, ge=0, le=1)
    """Share of bad rows that is left out and counted; above it nothing is judged."""


class PairSet(AnswerSet):
    """Pairs of completions, of which one is known to be better."""

    format: Literal["pairs", "rewardbench", "llmbar"] = "pairs"
    """pairs: any preferences that a run reads, such as HH's transcripts. rewardbench: `prompt`, `chosen`, `rejected`,
    `subset`. llmbar: `input`, `output_1`, `output_2`, and `label`, the number of the better one."""
    category: str | None = Field(None, min_length=1)
    """Column that tells categories apart; RewardBench's is `subset`. None: all pairs are one category."""

    @model_validator(mode="after")
    def _rewardbench_has_its_own(self) -> Self:
        if self.format == "rewardbench" and self.category is not None:
            raise ConfigurationError(
                f"category = {self.category!r}: RewardBench's sections are made of its column subset; leave category "
                "out, or set format to pairs"
            )
        return self


class SampleSet(AnswerSet):
    """Several completions a prompt, a row each, whose worth is known."""

    gold_column: str | None = Field(None, min_length=1)
    """Column with the gold reward of each row."""
    held_out: str | None = None
    """Name of one of `rewards`, which stands for the gold reward where no column has one."""

    @model_validator(mode="after")
    def _one_gold(self) -> Self:
        if (self.gold_column is None) == (self.held_out is None):
            raise ConfigurationError(
                f"set one of gold_column (a column of {self.source.path}) and held_out (one of rewards): best-of-n "
                "is measured by it"
            )
        return self


class BiasAudit(Section):
    """Completions that are changed in one way each, to see what that alone does to a reward."""

    set: str | None = None
    """Set whose completions are changed: of pairs the chosen side, of samples a prompt's first. None: the first set."""
    prompts: int = Field(100, ge=0)
    """Prompts, drawn by their hashes; 0: no audit."""


class JudgeRewardsConfig(Section):
    """The quality of rewards."""

    rewards: Annotated[Rewards, AfterValidator(check_names)] = Field(min_length=1)
    """Name -> where it comes from, as in a run's `rewards`. Nothing is trained: a reward model that was is named by its
    URI, as `reward_model: {ready_model: ...}`."""
    pairs: dict[str, PairSet] = Field(default_factory=dict)
    """Name -> pairs: accuracy and calibration."""
    samples: dict[str, SampleSet] = Field(default_factory=dict)
    """Name -> samples: agreement and best of n."""
    bias: BiasAudit = BiasAudit()
    """What else than its worth moves the reward of a completion."""
    tau: float = Field(1.0, gt=0)
    """Temperature at which calibration is measured: sigma(reward gap / tau) is how sure a reward is."""
    scoring: ScoringConfig = ScoringConfig()
    """How reward models compute."""
    seed: int = Field(0, ge=0)
    """Of the bootstrap, and of the shuffled reward."""
    store: str = Field("./.rsdpo", min_length=1)
    """Where completions and rewards are kept: a folder, `file:///...` or `s3://bucket/prefix`."""

    @model_validator(mode="after")
    def _rewards_are_ready(self) -> Self:
        for name, source in self.rewards.items():
            for own in source.reward_models:
                _check_ready(name, own)
        return self

    @model_validator(mode="after")
    def _sets_fit(self) -> Self:
        if not self.sets:
            raise ConfigurationError("there is nothing to judge on: name a set in pairs or in samples")
        if both := self.pairs.keys() & self.samples.keys():
            raise ConfigurationError(f"{min(both)} names a set of pairs and one of samples: rename one of them")
        for name, own in self.samples.items():
            if own.held_out is not None and own.held_out not in self.rewards:
                raise ConfigurationError(
                    f"samples.{name}.held_out = {own.held_out!r} is none of rewards: {', '.join(self.rewards)}"
                )
        if self.bias.set is not None and self.bias.set not in self.sets:
            raise ConfigurationError(f"bias.set = {self.bias.set!r} is none of the sets: {', '.join(self.sets)}")
        return self

    @property
    def sets(self) -> dict[str, PairSet | SampleSet]:
        """Return every set by name, pairs first."""
        return {**self.pairs, **self.samples}

    @property
    def audited(self) -> str:
        """Return the name of the set whose completions are changed."""
        return self.bias.set or next(iter(self.sets))


def _check_ready(name: str, own: OwnRewardModel) -> None:
    """Refuse a reward model that would have to be trained, and settings of such a training."""
    if own.ready_model is None:
        raise ConfigurationError(
            f"rewards.{name} has a reward model without ready_model, and nothing is trained here: train it in a run, "
            "and name the folder of its model in the store as ready_model"
        )
    if unread := sorted(own.model_fields_set - {"ready_model"}):
        raise ConfigurationError(
            f"rewards.{name}: {unread[0]} is read where a reward model is trained, and this one is ready: leave it out"
        )
