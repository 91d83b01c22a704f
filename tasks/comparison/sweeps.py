"""Sweeps: arms that differ in one swept setting alone, in its order. Pure: no store, no training.

tau and eta are one axis, the reward gap tau log(eta / (1 - eta)) above which a pair is kept (arXiv:2402.10038): two
settings of one gap ask for the same pairs, so that what tells their arms apart is noise.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from tasks.selection.threshold import gap_threshold

GAP = ("pairs.tau", "pairs.eta")
GAP_AXIS = "reward gap asked for, tau log(eta / (1 - eta))"


class Point(NamedTuple):
    """An arm of a sweep."""

    at: float
    """The value of the swept setting, or the reward gap."""
    arm: str


class Sweep(NamedTuple):
    """What one setting does, everything else being equal."""

    axis: str
    """What the setting is called on an axis."""
    series: dict[str, list[Point]]
    """Name -> arms that differ in the setting alone, in its order."""


def swept_settings(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the settings of which an arm lists several numbers, in their order.

    Args:
        arms: Name -> overrides, as a comparison declares them.
    """
    listed = [(name, value) for overrides in arms.values() for name, value in overrides.items()]
    return list(
        dict.fromkeys(name for name, value in listed if isinstance(value, list) and all(map(_is_number, value)))
    )


def sweeps(swept: Iterable[str], arms: Mapping[str, BaseModel]) -> list[Sweep]:
    """Return the sweep of each setting, tau and eta being one; arms that no grid has made come to the sweep they fit.

    Args:
        swept: Settings, `section.field`.
        arms: Name -> its whole configuration, under one seed.
    """
    axes = dict.fromkeys(GAP if setting in GAP else (setting,) for setting in swept)
    values = {name: config.model_dump(mode="json") for name, config in arms.items()}
    found = (Sweep(GAP_AXIS if axis == GAP else axis[0], _series(axis, values)) for axis in axes)
    return [sweep for sweep in found if sweep.series]


def _series(axis: Sequence[str], arms: Mapping[str, dict[str, Any]]) -> dict[str, list[Point]]:
    """Return the groups of two or more arms that are equal but for the settings of an axis."""
    groups: dict[str, list[Point]] = {}
    for name, values in arms.items():
        rest, own = _without(values, axis)
        if all(map(_is_number, own)):
            groups.setdefault(json.dumps(rest, sort_keys=True), []).append(Point(_place(axis, own), name))
    series: dict[str, list[Point]] = {}
    for points in groups.values():
        if len(points) > 1:
            name = _shared_name(points[0].arm, axis)
            series[points[0].arm if name in series else name] = sorted(points)
    return series


def _without(values: Mapping[str, Any], axis: Sequence[str]) -> tuple[dict[str, Any], list[Any]]:
    """Return a configuration without some settings, and the values of these; None: it has no such setting."""
    rest, own = json.loads(json.dumps(values)), []
    for setting in axis:
        *sections, field = setting.split(".")
        inner = rest
        for section in sections:
            inner = inner.get(section) or {}
        own.append(inner.pop(field, None))
    return rest, own


def _place(axis: Sequence[str], own: Sequence[float]) -> float:
    return gap_threshold(*own) if tuple(axis) == GAP else float(own[0])


def _shared_name(arm: str, axis: Sequence[str]) -> str:
    """Return the name of an arm without what a grid has added for the settings of an axis."""
    for setting in axis:
        arm = re.sub(rf", {re.escape(setting.rpartition('.')[2])} [^,]+", "", arm)
    return arm


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
