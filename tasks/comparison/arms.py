"""What is compared: the arms of a comparison, each a configuration with overrides, under several seeds."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import Field, field_validator

from tasks.comparison.algorithms import ALGORITHM, ALGORITHMS, algorithm_of, check_own, check_shared, reads
from tasks.config.errors import ConfigurationError
from tasks.config.sections import Section
from tasks.evaluation.named_rewards import ranked_by
from tasks.pipeline.configuration import Config

MOST_RUNS = 500
SEEDED = ("sampling.seed", "pairs.seed", "dpo.seed", "rloo.seed", "evaluation.seed")
"""What one seed moves: what is sampled, which pairs a cap keeps, the order of training, what is drawn to evaluate."""
Overrides = dict[str, Any]
Load = Callable[[str, Overrides, type[Config]], Config]
"""Reads a configuration file and overrides it, for runs of one kind."""


class ComparisonConfig(Section):
    """Several ways to align one policy, compared at equal footing."""

    base: str = Field(min_length=1)
    """Configuration file that every arm begins with."""
    set: Overrides = Field(default_factory=dict)
    """Overrides of every arm, `section.field: value`; each goes to the arms whose algorithm reads it."""
    arms: dict[str, Overrides] = Field(min_length=1)
    """Name -> overrides. A list makes an arm of each of its values, several lists one of each combination; a setting
    that is a list itself stands in another one. `algorithm: rloo` has RLOO in place of RS-DPO."""
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1)
    """One seed moves sampling, the caps on pairs, the order of training and evaluation together. Five or more: an
    interval over seeds needs some."""
    reward: str | None = None
    """By which reward arms are compared; None: `gold` where there is one, else `reward_model`."""
    at_kl: float | None = Field(None, gt=0)
    """KL from the reference at which rewards are compared, nats a completion; None: the highest that every arm reaches
    with every seed, controls apart."""
    controls: tuple[str, ...] = ()
    """Arms that should gain nothing: they do not decide at which KL the others are compared."""
    size_matched: bool = False
    """Compare once more with the pairs of every arm cut to the number of the smallest one's."""

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len({*seeds}) < len(seeds) or min(seeds) < 0:
            raise ConfigurationError(f"seeds = {list(seeds)} must be different numbers from 0 up")
        return seeds


class Arm(NamedTuple):
    """One way to align."""

    name: str
    overrides: Overrides


def expand(comparison: ComparisonConfig) -> list[Arm]:
    """Return the arms, those of a grid one by one.

    Raises:
        ConfigurationError: There are too many, or a control is no arm.
    """
    runs = sum(_size(overrides) for overrides in comparison.arms.values()) * len(comparison.seeds)
    if runs > MOST_RUNS:
        raise ConfigurationError(
            f"{runs} runs are asked for, and {MOST_RUNS} is the most: take fewer values, arms or seeds"
        )
    arms = [arm for name, overrides in comparison.arms.items() for arm in _grid(name, overrides)]
    if unknown := {*comparison.controls} - {arm.name for arm in arms}:
        raise ConfigurationError(
            f"controls = {sorted(unknown)} are no arms: there are {', '.join(arm.name for arm in arms)}"
        )
    return arms


def configurations(comparison: ComparisonConfig, arms: list[Arm], load: Load) -> dict[tuple[str, int], Config]:
    """Return the configuration of each arm under each seed.

    Raises:
        ConfigurationError: A setting is wrong, or two arms are the same.
    """
    found, seen = {}, dict[str, str]()
    algorithms = {algorithm_of({**comparison.set, **arm.overrides}) for arm in arms}
    check_shared(comparison.set, algorithms)
    if comparison.size_matched and not any(reads(algorithm, "pairs.max_pairs") for algorithm in algorithms):
        raise ConfigurationError("size_matched = true needs an arm that has pairs: leave it out")
    for arm, seed in itertools.product(arms, comparison.seeds):
        if clash := {*SEEDED} & {*arm.overrides, *comparison.set}:
            raise ConfigurationError(f"{min(clash)} is moved by `seeds`: leave it out of the overrides")
        with naming(arm.name):
            check_own(arm.overrides, comparison.set)
            config = load_arm(comparison, arm, seed, load)
            ranked_by(comparison.reward, config)  # refuses what no run would have
        if seed == comparison.seeds[0]:
            text = config.model_dump_json()
            if text in seen:
                raise ConfigurationError(
                    f"the arms {seen[text]} and {arm.name} are the same: override something in one of them, or leave "
                    "it out"
                )
            seen[text] = arm.name
        found[arm.name, seed] = config
    return found


def load_arm(comparison: ComparisonConfig, arm: Arm, seed: int, load: Load) -> Config:
    """Return the configuration of an arm under a seed, with the overrides that its algorithm reads."""
    overrides = {**comparison.set, **arm.overrides, **dict.fromkeys(SEEDED, seed)}
    algorithm = algorithm_of(overrides)
    own = {name: value for name, value in overrides.items() if name != ALGORITHM and reads(algorithm, name)}
    return load(comparison.base, own, ALGORITHMS[algorithm])


@contextlib.contextmanager
def naming(arm: str) -> Iterator[None]:
    """Say in which arm something is wrong."""
    try:
        yield
    except ConfigurationError as error:
        error.add_note(f"in the arm {arm}")
        raise


def _grid(name: str, overrides: Mapping[str, Any]) -> Iterator[Arm]:
    listed = {key: value for key, value in overrides.items() if isinstance(value, list)}
    for values in itertools.product(*listed.values()):
        own = dict(zip(listed, values, strict=True))
        told = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in own.items())
        yield Arm(f"{name}, {told}" if told else name, {**overrides, **own})


def _size(overrides: Mapping[str, Any]) -> int:
    size = 1
    for value in overrides.values():
        size *= len(value) if isinstance(value, list) else 1
    return size
