"""In which order runs that go side by side begin, so that nothing that two of them share is computed twice. Pure."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

from pydantic import BaseModel

SHARED = (
    {"data", "sft"},
    {"data", "sft", "sampling"},
    {"data", "sft", "sampling", "reward_model", "scoring"},
    {"data", "sft", "sampling", "reward_model", "scoring", "pairs"},
)
"""Sections on which stages depend, from the first stage on: runs that are equal in one of these share its stages."""
Key = TypeVar("Key", bound=Hashable)


def waves(runs: Mapping[Key, BaseModel]) -> list[list[Key]]:
    """Return runs in waves: those of one wave share nothing but what the waves before have computed.

    So the first run goes alone, since all share its policy; then the first one of each seed, and so on. Within a wave
    runs keep their order.

    Args:
        runs: What names a run -> its configuration.
    """
    waiting, there, found = list(runs), set[str](), list[list[Key]]()
    shared = {key: {config.model_dump_json(include=own) for own in SHARED} for key, config in runs.items()}
    while waiting:
        wave, claimed = list[Key](), set[str]()
        for key in waiting:
            missing = shared[key] - there
            if not missing & claimed:
                wave.append(key)
                claimed |= missing
        there |= claimed
        waiting = [key for key in waiting if key not in wave]
        found.append(wave)
    return found
