"""In which order runs that go side by side begin, so that nothing that two of them share is computed twice. Pure."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

from tasks.pipeline.configuration import Config, RlooRun

SHARED = (
    {"data", "sft"},
    {"data", "sft", "sampling"},
    {"data", "sft", "sampling", "reward_model", "scoring"},
    {"data", "sft", "sampling", "reward_model", "scoring", "pairs"},
)
"""Sections on which stages depend, from the first stage on: runs that are equal in one of these share its stages."""
Key = TypeVar("Key", bound=Hashable)


def waves(runs: Mapping[Key, Config]) -> list[list[Key]]:
    """Return runs in waves: those of one wave share nothing but what the waves before have computed.

    So the first run goes alone, since all share its policy; then the first one of each seed, and so on. Within a wave
    runs keep their order, those of RLOO behind the others: they leave no completions and no rewards that another finds.

    Args:
        runs: What names a run -> its configuration.
    """
    waiting = sorted(runs, key=lambda key: isinstance(runs[key], RlooRun))
    there, found = set[str](), list[list[Key]]()
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
