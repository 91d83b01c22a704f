"""What each of several rewards counts for in the one that pairs are selected by: settings, and their checks."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.config.errors import ConfigurationError
from tasks.config.sections import Section


class Term(Section):
    """What one reward counts for. Its settings apply in this order."""

    uncertainty: float = Field(0.0, ge=0)
    """Of an ensemble: mean - `uncertainty` * standard deviation of its members, a lower confidence bound."""
    at_least: float | None = None
    """A gate: completions with a lower reward are never chosen. In units of the reward, or of the ensemble's bound."""
    length: Literal["none", "piecewise", "monotone"] = "none"
    """Subtract what the number of tokens alone predicts, fitted on the whole table. piecewise: by straight lines
    between the deciles of the length. monotone: by the best function that never falls (isotonic regression)."""
    scale: Literal["none", "standardised", "within_prompt", "rank"] = "none"
    """standardised: mean 0, standard deviation 1 over the table. within_prompt: the same among the completions of a
    prompt; 0 where all are equal. rank: the place among them, 0 the worst and 1 the best, ties in the middle."""
    clip: tuple[float, float] | None = None
    """Lowest and highest value, in units of the scale."""
    weight: float = 1.0
    """Factor of the value in a sum and a minimum, exponent in a product. 0: it does not count, but for its gate."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip = {list(self.clip)} must be a lower bound and a higher one")
        if self.weight == 0 and self.at_least is None:
            raise ValueError("weight = 0 without at_least leaves a reward that counts for nothing: leave it out")
        return self


class Combination(Section):
    """How several rewards become one."""

    rewards: dict[str, Term] = Field(min_length=1)
    """Name of a reward -> what it counts for."""
    combine: Literal["sum", "min", "product"] = "sum"
    """Of the rewards r that have a weight w: the sum of all w r, the least w r, or the product of all r^w."""

    @model_validator(mode="after")
    def _counts(self) -> Self:
        weights = {name: term.weight for name, term in self.rewards.items()}
        if not any(weights.values()) or (self.combine != "min" and abs(sum(weights.values())) < 1e-12):
            raise ConfigurationError(
                f"pairs.rewards: the weights {weights} sum to zero: give at least one reward more weight than the "
                "others take away"
            )
        if self.combine == "min" and (low := [name for name, weight in weights.items() if weight < 0]):
            raise ConfigurationError(
                f"pairs.rewards.{low[0]}.weight = {weights[low[0]]:g} must be positive with pairs.combine = min: the "
                "highest of a reward would be the lowest"
            )
        return self

    @property
    def counted(self) -> dict[str, Term]:
        """Return the terms that have a weight."""
        return {name: term for name, term in self.rewards.items() if term.weight}

    @property
    def is_fitted(self) -> bool:
        """Tell whether a term that counts depends on the whole table."""
        return any(term.length != "none" or term.scale == "standardised" for term in self.counted.values())

    @property
    def as_it_is(self) -> str | None:
        """Return the only reward where it counts as it is; None where something is made of it or of several."""
        (name, term), *others = self.rewards.items()
        return None if others or term != Term() else name
