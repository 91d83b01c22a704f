"""The section `data`: where prompts, demonstrations and preferences come from."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.config.errors import ConfigurationError
from tasks.config.judges import JudgeConfig
from tasks.config.sections import NOT_IN_KEY, DataSource, PreferenceSource, Section


class DataConfig(Section):
    """Where prompts, demonstrations and preferences come from."""

    prompts: DataSource | Literal["added"]
    """Prompts to sample completions for; `added`: those that `flows.add_prompts` has put into the store."""
    demonstrations: DataSource | None = None
    """Prompts with completions for `train_sft`; the chosen side of preference data will do."""
    preferences: (
        PreferenceSource
        | Annotated[tuple[PreferenceSource, ...], Field(min_length=1)]
        | Literal["gold", "judged", "added"]
        | None
    ) = None
    """Pairs for `train_reward_model`, of one source or of several; `gold` labels pairs of the policy's own completions
    with the gold reward, `judged` with `judge` (RLAIF); `added`: those that `flows.add_preferences` has put into the
    store."""
    judge: JudgeConfig | None = None
    """Labels pairs of the policy's own completions, where `preferences` is `judged`: by its `principles`, where it has
    some."""
    consensus: Literal["each", "majority"] = "each"
    """What becomes of several rows about the same two completions of a prompt. `each`: every different row is a pair,
    also where they contradict each other. `majority`: one pair, as most rows have it; its margin is their agreement."""
    evaluation_prompts: DataSource | None = None
    """Held-out prompts; without it a share of `prompts` is held out."""
    evaluation_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of `prompts` held out, chosen by the hash of each prompt, so that it is stable as prompts are added."""
    decontaminate: int | None = Field(None, ge=2)
    """Leave out of all that is trained on the prompts that share so many successive words with a held-out prompt.
    8 is usual. None: only held-out prompts themselves are left out."""
    max_prompts: int | None = Field(None, ge=2)
    """Use the first so many prompts, after the held-out ones are taken away."""
    max_evaluation_prompts: int | None = Field(None, ge=1)
    """Evaluate on the first so many held-out prompts."""
    pilot: Annotated[int | None, NOT_IN_KEY] = Field(None, ge=2)
    """Go through the pipeline with so many prompts, drawn by their hashes, and ten steps of DPO, and predict what the
    whole run will find and cost. What is sampled and scored counts for the whole run. `--pilot N` sets it."""
    system_prompt: str | None = Field(None, min_length=1)
    """System message put before conversations that have none."""
    max_bad_fraction: float = Field(0.01, ge=0, le=1)
    """Share of bad rows (null, empty, over-long, ...) that is dropped and counted; above it the run stops."""

    @model_validator(mode="after")
    def _sources_are_told_apart(self) -> Self:
        names = [source.label or source.path for source in self.preference_sources]
        if len(names) > 1 and (word := next((name for name in names if name in ("gold", "added")), None)):
            raise ConfigurationError(f"{word!r} cannot be one of several sources of data.preferences: name files")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigurationError(f"two sources of data.preferences are called {twice!r}: give each its own `label`")
        return self

    @model_validator(mode="after")
    def _judge_is_asked(self) -> Self:
        if (self.preferences == "judged") != (self.judge is not None):
            raise ConfigurationError("data.judge and data.preferences = judged go together: set both, or none")
        return self

    @property
    def labels_completions(self) -> bool:
        """Tell whether the preferences are labels of the policy's own completions."""
        return self.preferences in ("gold", "judged")

    @property
    def preference_sources(self) -> tuple[PreferenceSource, ...]:
        """Return the sources of preferences that are files, folders or hub datasets."""
        if isinstance(self.preferences, PreferenceSource):
            return (self.preferences,)
        return self.preferences if isinstance(self.preferences, tuple) else ()
