"""What aligns an arm's policy, and which overrides it reads."""

from collections.abc import Mapping
from typing import Any

from tasks.config.errors import ConfigurationError
from tasks.pipeline.configuration import Config, RlooRun

ALGORITHM, DEFAULT = "algorithm", "rs_dpo"
ALGORITHMS: Mapping[str, type[Config]] = {DEFAULT: Config, "rloo": RlooRun}
"""Name -> the configuration of its runs."""
WITHOUT: Mapping[type[Config], frozenset[str]] = {
    Config: frozenset({"train_rloo"}),
    RlooRun: frozenset({"train_dpo", "score_completions"}),
}
"""Configuration -> the stages on GPUs that its runs do not have."""
READ_BY = {"pairs": (DEFAULT,), "dpo": (DEFAULT,), "rloo": ("rloo",), "pairs.truncated": (DEFAULT, "rloo")}
"""Section, or a setting that is read otherwise than its section -> the algorithms that read it. Others: all."""


def algorithm_of(overrides: Mapping[str, Any]) -> str:
    """Return which algorithm overrides ask for.

    Raises:
        ConfigurationError: There is none of this name.
    """
    name = overrides.get(ALGORITHM, DEFAULT)
    if name not in ALGORITHMS:
        raise ConfigurationError(f"algorithm = {name!r} must be one of {', '.join(ALGORITHMS)}")
    return str(name)


def reads(algorithm: str, setting: str) -> bool:
    """Tell whether an algorithm reads a setting."""
    return algorithm in READ_BY.get(setting, READ_BY.get(setting.partition(".")[0], tuple(ALGORITHMS)))


def check_own(overrides: Mapping[str, Any], shared: Mapping[str, Any]) -> None:
    """Refuse an arm's own overrides that its algorithm does not read.

    Args:
        overrides: The arm's own.
        shared: Those of every arm: each goes to the arms that read it.

    Raises:
        ConfigurationError: Names the setting.
    """
    algorithm = algorithm_of({**shared, **overrides})
    if unread := [name for name in overrides if not reads(algorithm, name)]:
        raise ConfigurationError(f"{unread[0]} is not read with algorithm = {algorithm}: leave it out of the arm")


def check_shared(shared: Mapping[str, Any], algorithms: set[str]) -> None:
    """Refuse overrides of every arm that none reads.

    Raises:
        ConfigurationError: Names the setting.
    """
    if unread := [name for name in shared if not any(reads(algorithm, name) for algorithm in algorithms)]:
        raise ConfigurationError(f"{unread[0]} in `set` is read by no arm: leave it out")
