"""What is compared: the arms of a comparison, each a configuration with overrides, under several seeds."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import Field, field_validator

from tasks.comparison.algorithms import ALGORITHM, ALGORITHMS, WITHOUT, algorithm_of, check_own, check_shared, reads
from tasks.config.compute import GPU_STAGES
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
    weakened: dict[str, str] = Field(default_factory=dict)
    """Arm -> the arm that it is but for something weaker, such as its reward model: what it loses is told in per cent
    of what the other one has."""
    at_once: int = Field(1, ge=1, le=100)
    """Runs that go side by side. More than one needs a pool of workers for every GPU stage."""
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
        ConfigurationError: There are too many, or a control or a weakened arm is none.
    """
    runs = sum(_size(overrides) for overrides in comparison.arms.values()) * len(comparison.seeds)
    if runs > MOST_RUNS:
        raise ConfigurationError(
            f"{runs} runs are asked for, and {MOST_RUNS} is the most: take fewer values, arms or seeds"
        )
    arms = [arm for name, overrides in comparison.arms.items() for arm in _grid(name, overrides)]
    names = {arm.name: None for arm in arms}
    weakened = [name for pair in comparison.weakened.items() for name in pair]
    for field, named in (("controls", comparison.controls), ("weakened", weakened)):
        if unknown := {*named} - names.keys():
            raise ConfigurationError(f"{field} = {sorted(unknown)} are no arms: there are {', '.join(names)}")
    if same := [weak for weak, strong in comparison.weakened.items() if weak == strong]:
        raise ConfigurationError(
            f"weakened = {same} are held against themselves: name the arm that each is weaker than"
        )
    return arms


def configurations(comparison: ComparisonConfig, arms: list[Arm], load: Load) -> dict[tuple[str, int], Config]:
    """Return the configuration of each arm under each seed.

    Raises:
        ConfigurationError: A setting is wrong, two arms are the same, or runs at once would compute on one machine.
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
            _check_pools(comparison.at_once, config)
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


def _check_pools(at_once: int, config: Config) -> None:
    """Refuse runs side by side that would compute on one machine."""
    inline = GPU_STAGES.keys() - WITHOUT[type(config)] - config.compute.deployments().keys()
    if at_once > 1 and inline:
        raise ConfigurationError(
            f"at_once = {at_once} needs a deployment in compute.{min(inline)} and for every other stage on GPUs: "
            "trainings side by side on one machine slow each other down. Send the stages to a pool, or leave at_once "
            "out"
        )


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
