"""How many GPUs a stage computes on: what a worker must have to run it, and the slots that it takes."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tasks.config.sections import Section
from tasks.config.settings import Decoding
from tasks.config.training import Training
from tasks.pipeline.stage import Stage

PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
"""Arguments of vLLM whose product is its GPUs."""


class Need(NamedTuple):
    """The GPUs of a stage."""

    gpus: int
    setting: str
    """The setting that decides the number, for messages."""


def gpus_of(section: Section) -> int:
    """Return the GPUs that a stage with these settings computes on."""
    if isinstance(section, Training):
        return section.devices
    extra = section.extra if isinstance(section, Decoding) else {}
    return math.prod(int(extra.get(name, 1)) for name in PARALLEL)


def gpus_of_run(arguments: Mapping[str, Any]) -> int:
    """Return the GPUs that a stage computes on, given its arguments: the most that one of its sections asks for."""
    return max(map(gpus_of, _sections(arguments.values())), default=1)


def gpus_needed(stages: Iterable[Stage[...]], sections: Mapping[str, Section]) -> dict[str, Need]:
    """Return, by name, the GPUs of each stage that computes and may need more than one.

    Args:
        stages: The stages that need GPUs.
        sections: The sections of a run's configuration by name.
    """
    needs = {}
    for stage in stages:
        name = stage.options.get("gpus", "")
        section = _section_at(name, sections)
        if section is not None and getattr(section, "ready_model", None) is None:
            is_training = isinstance(section, Training)
            setting = f"{name}.devices" if is_training else f"{name}.extra, {' x '.join(PARALLEL)},"
            needs[stage.name] = Need(gpus_of(section), setting)
    return needs


def _section_at(path: str, sections: Mapping[str, Section]) -> Section | None:
    """Return the section at a path such as `evaluation.benchmarks.sampling`; None where a run has none there."""
    name, *inner = path.split(".")
    found: Any = sections.get(name)
    for each in inner:
        found = getattr(found, each, None)
    return found if isinstance(found, Section) else None


def _sections(values: Iterable[Any]) -> Iterator[Section]:
    """Yield the sections among some values, and the sections within them."""
    for value in values:
        if isinstance(value, Section):
            yield value
            yield from _sections(getattr(value, name) for name in type(value).model_fields)
