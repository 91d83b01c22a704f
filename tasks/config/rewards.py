"""Where a reward comes from: the section `rewards`, a mapping of names to sources."""

import re
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from tasks.config.errors import ConfigurationError
from tasks.config.judges import JudgeConfig
from tasks.config.sections import NOT_IN_KEY, Function, PreferenceSource, Section
from tasks.config.settings import RewardModelConfig

GOLD, SECTION, HELD_OUT, COMBINED = "gold", "reward_model", "held_out_model", "combined"
"""Rewards that need no name of their own: `evaluation.gold_reward`; the reward model of the section `reward_model`; the
one on the other half of its preferences; what `pairs.rewards` makes of several."""
CALLED = ("function", "judge")
"""Kinds of rewards that need no GPU: they are called where the flow runs."""
RESERVED = (GOLD, SECTION, HELD_OUT, COMBINED)


class OwnRewardModel(RewardModelConfig):
    """A reward model beside the one of the section `reward_model`, with settings of its own."""

    preferences: Annotated[
        PreferenceSource | Annotated[tuple[PreferenceSource, ...], Field(min_length=1)] | None, NOT_IN_KEY
    ] = None
    """Pairs to train it on; None: those of `data.preferences`."""


class RewardSource(Section):
    """What gives a reward to a prompt and a completion: a reward model, an ensemble of them, a function or a judge."""

    reward_model: OwnRewardModel | None = None
    """A reward model that is trained here, or a ready one."""
    ensemble: tuple[OwnRewardModel, ...] = ()
    """Several reward models, trained here with other seeds or data, or ready: their mean is the reward, and
    `pairs.rewards` can take off a multiple of their standard deviation."""
    function: Annotated[str | None, NOT_IN_KEY] = Field(None, pattern=r"^[\w.]+:\w+$")
    """`module:function`, called as `f(messages, completion, **options)`; returns a number. One that has a parameter
    `metadata` or `reference_completion` gets the prompt's."""
    options: Annotated[dict[str, Any], NOT_IN_KEY] = Field(default_factory=dict)
    """Keyword options of the function. The reward is keyed by the function's source, its options, and the files they
    name."""
    judge: JudgeConfig | None = None
    """A language model that rates completions (docs/judges.md)."""
    max_failed: Annotated[float, NOT_IN_KEY] = Field(0.01, ge=0, le=1)
    """Share of the completions that a function may fail on. They have no reward, are in no pair, and are counted; above
    it the run stops."""

    @model_validator(mode="after")
    def _one_maker(self) -> Self:
        makers = [name for name in ("reward_model", "ensemble", "function", "judge") if getattr(self, name)]
        if len(makers) != 1:
            raise ValueError(
                f"set exactly one of reward_model, ensemble, function and judge, not {' and '.join(makers) or 'none'}"
            )
        if len(self.ensemble) == 1:
            raise ValueError("ensemble has one reward model: name it as reward_model, or add others")
        if any(own.held_out for own in self.reward_models):
            raise ValueError(
                "held_out is read in the section reward_model alone: a reward that pairs.rewards does not name "
                "evaluates only"
            )
        if self.judge is not None and self.judge.principles:
            raise ValueError("judge.principles compare two answers: give judge.criteria, which rate each by itself")
        if self.function is None and self.options:
            raise ValueError("options are read by a function alone: name it, or leave them out")
        if self.function is None and self.max_failed != type(self).model_fields["max_failed"].default:
            raise ValueError("max_failed is read by a function alone: judge.max_unreadable is a judge's; leave it out")
        return self

    @property
    def reward_models(self) -> tuple[OwnRewardModel, ...]:
        """Return the reward models of the source, none of a function."""
        return self.ensemble if self.reward_model is None else (self.reward_model,)

    @property
    def called(self) -> Function:
        """Return the function with its options."""
        assert self.function is not None
        return Function(function=self.function, options=self.options)


Rewards = dict[str, RewardSource]
NO_REWARDS: Rewards = {}


def artifact_name(reward: str) -> str:
    """Return what a reward is called among the artifacts of a run."""
    return reward if reward.partition(".")[0] in RESERVED else f"rewards.{reward}"


def check_names(rewards: Rewards) -> Rewards:
    """Refuse names that mean something else, or that cannot be a column.

    Raises:
        ConfigurationError: Names it.
    """
    for name in rewards:
        if name in RESERVED:
            raise ConfigurationError(
                f"rewards.{name}: the name is taken by a reward that every run may have; choose another"
            )
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ConfigurationError(
                f"rewards: {name!r} must be lower-case letters, digits and _, a letter first: it names a column"
            )
    return rewards
