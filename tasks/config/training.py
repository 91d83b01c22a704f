"""The settings that training stages share, and the settings of DPO.

A field marked `NOT_IN_KEY` is left out of the stage key.
"""

from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, model_validator

from tasks.config.errors import ConfigurationError
from tasks.config.extra import CHANGES_NO_OUTPUT, NOT_FOR_DPO, Extra, why_refused
from tasks.config.losses import (
    Distance,
    PairWeights,
    Scale,
    check_names,
    check_settings,
    check_smoothing,
    check_weights,
)
from tasks.config.sections import NOT_IN_KEY, Section

Dtype = Literal["float32", "bfloat16", "float16"]


class Lora(Section):
    """Low-rank adapters; the trained model is merged before it is stored."""

    r: int = Field(8, ge=1)
    """Rank."""
    alpha: float = Field(16, gt=0)
    """Scale: the update is alpha / r times the product of the two factors."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapters' input."""
    target_modules: str | list[str] = "all-linear"
    """Modules that get adapters."""


class Training(Section):
    """What SFT, reward-model training and DPO share. `extra` passes anything else to TRL's trainer."""

    learning_rate: float = Field(1e-5, gt=0)
    """Peak learning rate of AdamW."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the data."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps; overrides `epochs`."""
    batch_size: int = Field(64, ge=1)
    """Examples (for preferences: pairs) an optimizer step, over all devices and accumulation."""
    devices: Annotated[int, NOT_IN_KEY] = Field(1, ge=1)
    """Devices to train on; more than one starts `torchrun`."""
    max_length: int = Field(1024, ge=8)
    """Longest prompt plus completion in tokens; longer examples are dropped and counted."""
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    scheduler: str = "cosine"
    """Learning-rate schedule by its transformers name."""
    seed: int = Field(0, ge=0, lt=1 << 32)
    """Seed of the shuffle and of new weights."""
    save_steps: Annotated[int, NOT_IN_KEY] = Field(200, ge=1)
    """Optimizer steps between checkpoints in the store."""
    logging_steps: Annotated[int, NOT_IN_KEY] = Field(10, ge=1)
    """Optimizer steps between logged metrics."""
    dtype: Dtype = "float32"
    """Type of frozen weights and of autocast; trained weights are float32. bfloat16 suits GPUs."""
    stored_dtype: Dtype | None = None
    """Type of the stored model. None: `dtype`, but float32 where more than 1% of the training would be rounded away."""
    lora: Lora | None = None
    """Adapters instead of all weights."""
    extra: Extra = Field(default_factory=dict)
    """Further arguments of TRL's trainer configuration: those that tasks/config/extra.py lists for the section."""

    section: ClassVar[str]
    """Name in the configuration."""

    @property
    def losses(self) -> tuple[str, ...]:
        """Return the names of the losses, where they can be chosen."""
        return ()

    def key_fields(self, only: Collection[str] | None = None) -> dict[str, Any]:
        """Return the fields that decide the trained model; trackers and loaders under `extra` do not."""
        fields = super().key_fields(only)
        extra = fields.pop("extra", {})
        deciding = {name: value for name, value in extra.items() if name not in CHANGES_NO_OUTPUT}
        return fields | {"extra": deciding} if deciding else fields

    @model_validator(mode="after")
    def _extra_does_something(self) -> Self:
        for name in self.extra:
            if (reason := why_refused(self.section, name, self.extra, self.losses)) is not None:
                raise ConfigurationError(f"{self.section}.extra.{name} cannot be set: {reason}")
        return self


class FixedBatches(Training):
    """Training with the same number of examples in every forward pass."""

    micro_batch_size: Annotated[int, NOT_IN_KEY] = Field(8, ge=1)
    """Examples a forward pass on one device."""

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        each, rest = divmod(self.batch_size, self.devices)
        if rest or (each > self.micro_batch_size and each % self.micro_batch_size):
            raise ConfigurationError(
                f"batch_size = {self.batch_size} must be a multiple of micro_batch_size x devices = "
                f"{self.micro_batch_size} x {self.devices}, or at most that and a multiple of devices: an optimizer "
                "step is made of whole forward passes"
            )
        return self


class TokenBatches(Training):
    """Training whose optimizer step takes its examples in passes of like lengths, under a budget of tokens."""

    tokens_per_batch: Annotated[int, NOT_IN_KEY] = Field(8192, ge=1)
    """Most tokens in one forward and backward pass on one device: examples times the longest. A single example may have
    more. Halved where the GPU's memory does not suffice."""

    @model_validator(mode="before")
    @classmethod
    def _no_fixed_batches(cls, values: Any) -> Any:
        if isinstance(values, dict) and "micro_batch_size" in values:
            raise ConfigurationError(
                f"{cls.section}.micro_batch_size = {values['micro_batch_size']} is no setting any more: an optimizer "
                f"step takes its {cls.section}.batch_size examples in passes of at most {cls.section}.tokens_per_batch "
                "tokens; take it out, and lower tokens_per_batch where memory runs out. No result depends on either"
            )
        return values


class DpoConfig(Training):
    """Direct preference optimization against the SFT policy.

    An optimizer step takes whole prompts with all their pairs, `batch_size` pairs or the nearest number to it; a prompt
    that has more is cut.
    """

    section: ClassVar[str] = "dpo"

    beta: float = Field(0.1, gt=0)
    """Strength of the pull towards the reference model."""
    loss_type: str | Annotated[tuple[str, ...], Field(min_length=1)] = "sigmoid"
    """TRL's name of a pairwise loss, or one of ours: simpo, orpo, sft_sequence, odpo, rpo, rebel, kto. Several
    are added up."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Probability that a pair's label is wrong, for the losses sigmoid (cDPO), robust and exo_pair."""
    loss_weights: tuple[NonNegativeFloat, ...] | None = None
    """Weight of each loss; None: 1 each."""
    simpo_beta: float = Field(2.0, gt=0)
    """SimPO: factor of the mean log-probability of a completion's tokens. It has no reference, and does not read
    `beta`."""
    simpo_gamma: float = Field(1.0, ge=0)
    """SimPO: margin by which chosen must beat rejected, in units of `simpo_beta` times nats a token (paper: half of
    `simpo_beta`)."""
    orpo_weight: float = Field(0.1, ge=0)
    """ORPO: weight of the odds ratio beside the likelihood of the chosen completion (paper: lambda)."""
    odpo_alpha: float = Field(1.0, ge=0)
    """ODPO: factor of the offset that a pair's reward gap makes. 0: DPO."""
    odpo_scale: Scale = "log"
    """ODPO: the offset grows with the logarithm of the reward gap (as in the paper, and then below 0 for gaps below 1),
    or with the gap itself."""
    rpo_eta: float = Field(1.0, gt=0)
    """RPO: factor of the reward gap that the margin of a pair is to reach."""
    rpo_distance: Distance = "backward"
    """RPO: distance of margin and gap. `backward`: KL of the reward's preference from the policy's; `forward`: the
    other way round; `squared`: half their squared difference."""
    kto_desirable_weight: float = Field(1.0, gt=0)
    """KTO: weight of the chosen completions. The paper has this times their number between 1 and 4/3 of
    `kto_undesirable_weight` times the number of the rejected."""
    kto_undesirable_weight: float = Field(1.0, gt=0)
    """KTO: weight of the rejected completions."""
    weight_pairs: PairWeights = "pair"
    """What a pair counts within its optimizer step. `pair`: each the same, so that a prompt of wide rewards, which has
    many pairs, counts more. `prompt`: 1 / (pairs of its prompt)."""
    evaluation_fraction: float = Field(0.0, ge=0, lt=1)
    """Share of the prompts whose pairs are not trained on, but show how the training carries over: accuracy and margin
    on them (of at most 128 prompts) are in the log."""
    snapshots: int = Field(0, ge=0, le=100)
    """Models kept along the training at even distances, the last one apart, and compared like it: the curve of reward
    against KL. With `lora` they are adapters."""
    keep: Annotated[Literal["last", "best"], NOT_IN_KEY] = "last"
    """Which model is the aligned one. `best`: of the `snapshots` and the last one the earliest that a held-out reward
    likes as well as any, within a standard error over the held-out prompts. The training is the same."""
    tokens_per_batch: Annotated[int, NOT_IN_KEY] = Field(8192, ge=1)
    """Most tokens, padding apart, in one forward and backward pass on one device. A single pair may have more."""
    lora: Lora | None = Lora()
    """Adapters instead of all weights (paper: r = 8)."""

    @property
    def losses(self) -> tuple[str, ...]:
        """Return the names of the losses."""
        return (self.loss_type,) if isinstance(self.loss_type, str) else self.loss_type

    @model_validator(mode="after")
    def _losses_go_with_their_settings(self) -> Self:
        given = {name: getattr(self, name) for name in type(self).model_fields}
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        check_names(self.losses, self.loss_weights)
        check_settings(self.losses, given, defaults)
        check_weights(self.losses, self.weight_pairs)
        check_smoothing(self.losses, self.label_smoothing, self.extra)
        return self

    @model_validator(mode="after")
    def _best_is_one_of_several(self) -> Self:
        if self.keep == "best" and self.snapshots == 0:
            raise ConfigurationError("dpo.keep = best chooses among dpo.snapshots = 0 models: set it to 1 or more")
        return self

    @model_validator(mode="after")
    def _no_dropout(self) -> Self:
        if self.lora is not None and self.lora.dropout:
            raise ConfigurationError(
                f"dpo.lora.dropout = {self.lora.dropout} must be 0: {NOT_FOR_DPO['disable_dropout']}"
            )
        return self
