"""Sections of the configuration with bounds, each field documented in place; see this folder's `__init__.py`.

A field marked `NOT_IN_KEY` is left out of the stage key.
"""

from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from tasks.config.errors import ConfigurationError
from tasks.config.extra import Extra
from tasks.config.reward_losses import check_reward_loss
from tasks.config.sections import NOT_IN_KEY, ModelSource, Section
from tasks.config.training import Dtype, TokenBatches

ENGINE_ARGUMENTS: dict[str, Any] = {
    "block_size": PositiveInt,
    "cpu_offload_gb": NonNegativeFloat,
    "data_parallel_size": PositiveInt,
    "disable_custom_all_reduce": bool,
    "distributed_executor_backend": str,
    "enforce_eager": bool,
    "gpu_memory_utilization": Annotated[float, Field(gt=0, le=1)],
    "kv_cache_memory_bytes": PositiveInt,
    "max_num_batched_tokens": PositiveInt,
    "max_num_seqs": PositiveInt,
    "pipeline_parallel_size": PositiveInt,
    "tensor_parallel_size": PositiveInt,
}
"""Arguments of vLLM's `LLM` that may stay out of the stage key, and what they must be."""
MOST_COMPLETIONS = 16384
"""vLLM draws no more for one prompt."""
LEAST_TEMPERATURE = 0.01
"""vLLM draws at this one where a lower one is asked for, 0 apart."""


class SftConfig(TokenBatches):
    """Supervised fine-tuning of the base model on demonstrations, or a ready policy."""

    section: ClassVar[str] = "sft"

    base_model: ModelSource | None = None
    """Model to fine-tune."""
    ready_model: ModelSource | None = None
    """Policy to use as it is; skips the training."""

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.base_model is None) == (self.ready_model is None):
            raise ConfigurationError("set one of sft.base_model (to fine-tune) and sft.ready_model (to use as it is)")
        return self


class RewardModelConfig(TokenBatches):
    """Reward model on preferences, or a ready one."""

    section: ClassVar[str] = "reward_model"

    base_model: ModelSource | None = None
    """Model that gets the scalar head; None starts from the policy."""
    ready_model: ModelSource | None = None
    """Reward model to use as it is; skips the training."""
    evaluation_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the preferences, split by prompt, held out to measure accuracy."""
    held_out: Annotated[bool, NOT_IN_KEY] = False
    """Train on one half of the preferences, split by prompt, and a second reward model on the other half, which only
    evaluates: a reward that rises by the first alone is over-optimised."""
    loss: str = "bradley_terry"
    """bradley_terry; margin: chosen must win by the data's `margin` column; centred: rewards stay around 0;
    k_comparisons: all pairs of a prompt together, each prompt weighing the same; plackett_luce: rankings, of prompts
    whose pairs make one. The last two count prompts in `batch_size`."""
    use_margin: bool = False
    """Older name of `loss: margin`: each sets the other."""
    centring_coefficient: float = Field(0.01, gt=0)
    """centred: weight of (r_chosen + r_rejected)^2."""

    @model_validator(mode="before")
    @classmethod
    def _margin_has_two_names(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not (values.get("use_margin") or values.get("loss") == "margin"):
            return values
        if values.get("loss", "margin") not in ("margin", "bradley_terry"):
            raise ConfigurationError(
                f"reward_model.use_margin is another name of the loss margin, and reward_model.loss = "
                f"{values['loss']!r}: unset use_margin"
            )
        return values | {"loss": "margin", "use_margin": values.get("use_margin") or True}

    @model_validator(mode="after")
    def _loss_goes_with_its_settings(self) -> Self:
        fields = type(self).model_fields
        given = {name: getattr(self, name) for name in fields}
        check_reward_loss(self.loss, given, {name: field.default for name, field in fields.items()})
        return self

    def key_fields(self, only: Collection[str] | None = None) -> dict[str, Any]:
        """Return the fields that decide the trained model; the loss `margin` is there by its older name alone."""
        fields = super().key_fields(only)
        return {name: value for name, value in fields.items() if (name, value) != ("loss", "margin")}

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.base_model is not None and self.ready_model is not None:
            raise ConfigurationError("set at most one of reward_model.base_model and reward_model.ready_model")
        if self.held_out and self.ready_model is not None:
            raise ConfigurationError("reward_model.held_out needs preferences to train on: unset it, or ready_model")
        return self

    @property
    def halves(self) -> tuple[int, ...]:
        """Return which half of the preferences each reward model is trained on; 0: all of them."""
        return (1, 2) if self.held_out else (0,)


class Decoding(Section):
    """How completions are drawn."""

    k: int = Field(1, ge=1, le=MOST_COMPLETIONS)
    """Completions a prompt."""
    temperature: float = Field(1.0, ge=0, le=2)
    """Softmax temperature; 0 is greedy. vLLM takes no other below 0.01, and none above 2."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus: smallest set of tokens with this probability."""
    top_k: int = Field(0, ge=0)
    """Most likely tokens to draw from; 0 draws from all."""
    max_new_tokens: int = Field(256, ge=1)
    """Tokens after which a completion is cut (finish_reason `length`)."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end a completion."""
    seed: int = Field(0, ge=0)
    """Run seed; each prompt's seed derives from it and the prompt_id."""
    dtype: Dtype = "float32"
    """Data type of the weights."""
    engine: Annotated[Literal["auto", "vllm", "transformers"], NOT_IN_KEY] = "auto"
    """auto: vLLM where it is installed, else transformers. Both draw from the same distribution."""
    part_size: Annotated[int, NOT_IN_KEY] = Field(64, ge=1)
    """Prompts a part. A crash loses those under way: at most four parts, or eight times what the engine works on."""
    extra: Annotated[Extra, NOT_IN_KEY] = Field(default_factory=dict)
    """Further arguments of vLLM's `LLM` that decide memory and parallelism, not what is drawn."""

    @model_validator(mode="after")
    def _temperature_is_drawn_at(self) -> Self:
        if 0 < self.temperature < LEAST_TEMPERATURE:
            raise ConfigurationError(
                f"sampling.temperature = {self.temperature:g} must be 0 (greedy) or at least {LEAST_TEMPERATURE}: vLLM "
                "would draw at that"
            )
        return self

    @model_validator(mode="after")
    def _extra_is_read(self) -> Self:
        if self.extra and self.engine == "transformers":
            raise ConfigurationError(
                f"sampling.extra.{min(self.extra)} is read by vLLM alone: leave it out or set sampling.engine to auto"
            )
        return self

    @field_validator("extra")
    @classmethod
    def _extra_does_not_change_the_output(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if unknown := sorted(extra.keys() - ENGINE_ARGUMENTS.keys()):
            raise ConfigurationError(
                f"sampling.extra.{unknown[0]} is not among the engine arguments that leave the output alone: "
                f"{', '.join(sorted(ENGINE_ARGUMENTS))}"
            )
        return {name: _engine_argument(name, value) for name, value in extra.items()}


def _engine_argument(name: str, value: Any) -> Any:
    try:
        return TypeAdapter(ENGINE_ARGUMENTS[name]).validate_python(value, strict=isinstance(value, str | bool))
    except ValidationError as error:
        raise ConfigurationError(f"sampling.extra.{name} = {value!r}: {error.errors()[0]['msg']}") from error


class SamplingConfig(Decoding):
    """Sampling of the k completions a prompt that pairs are selected from."""

    k: int = Field(16, ge=2, le=MOST_COMPLETIONS)
    """Completions a prompt (paper: 16)."""
    temperature: float = Field(1.0, ge=LEAST_TEMPERATURE, le=2)
    """Softmax temperature; greedy decoding would make the k completions equal."""


class ScoringConfig(Section):
    """How completions are scored."""

    tokens_per_batch: Annotated[int | None, NOT_IN_KEY] = Field(None, ge=1)
    """Most tokens a batch, padding and every completion's prompt counted; None: what suits the device. Halved where the
    GPU's memory does not suffice."""
    dtype: Dtype = "float32"
    """Data type of the reward model's weights."""
    engine: Annotated[Literal["auto", "vllm", "transformers"], NOT_IN_KEY] = "auto"
    """auto: transformers, each prompt computed once; vLLM with prefix caching measured no faster. vLLM is compared with
    transformers before it scores: in float32 their rewards agree to 1e-4, so that both are in one table."""
