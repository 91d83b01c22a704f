"""Verdicts of the monitors on what a stage has recorded, and the section that sets their ranges."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, create_model, field_validator, model_validator

from tasks.config.errors import ConfigurationError
from tasks.config.sections import NOT_IN_KEY, Section
from tasks.monitors.monitor import Monitor
from tasks.monitors.table import MONITORS

OK, WARN, FAIL, UNMEASURED = "ok", "warn", "fail", "not measured"


class Threshold(Section):
    """One monitor's range, and what happens outside of it."""

    level: Annotated[Literal["off", "warn", "fail"], NOT_IN_KEY] = "warn"
    """off: not measured. warn: log, report and event. fail: the run stops too, before its next stage."""
    low: Annotated[float | None, NOT_IN_KEY] = None
    """Least healthy value; None: the monitor's own, where it has one."""
    high: Annotated[float | None, NOT_IN_KEY] = None
    """Greatest healthy value; None: the monitor's own, where it has one."""

    @field_validator("level", mode="before")
    @classmethod
    def _off_is_a_word(cls, level: Any) -> Any:
        """Return `off` for what YAML 1.1 makes of it without quotes."""
        return "off" if level is False else level


def _bounds(monitor: Monitor) -> str:
    low, high = (None if bound is None else f"{bound:g}" for bound in (monitor.low, monitor.high))
    return f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}"


if TYPE_CHECKING:
    _Monitors = Section
else:
    _Monitors = create_model(
        "_Monitors",
        __base__=Section,
        **{
            monitor.name: (
                Threshold,
                Field(Threshold(), description=f"{monitor.measured}. Healthy: {_bounds(monitor)}."),
            )
            for monitor in MONITORS
        },
    )


class MonitorsConfig(_Monitors):
    """When a run is to be doubted; see `tasks/monitors/table.py`. Changes nothing that is computed."""

    @model_validator(mode="after")
    def _ranges_are_some(self) -> Self:
        for monitor in MONITORS:
            low, high = range_of(monitor, getattr(self, monitor.name))
            if low is not None and high is not None and low > high:
                raise ConfigurationError(f"{monitor.name}: low = {low:g} must be at most high = {high:g}: set both")
        return self


def range_of(monitor: Monitor, threshold: Threshold) -> tuple[float | None, float | None]:
    """Return the least and the greatest healthy value: what is configured, else the monitor's own."""
    low = monitor.low if threshold.low is None else threshold.low
    return low, monitor.high if threshold.high is None else threshold.high


class Verdict(NamedTuple):
    """What a monitor found."""

    name: str
    about: str
    """The policy or the reward that was judged; "" where there is one thing only."""
    level: str
    """`ok`, `warn`, `fail` or `not measured`."""
    value: float | None
    text: str
    """In plain words."""


class MonitorError(RuntimeError):
    """A monitor of level `fail` is outside of its range."""


def judge(stage: str, stats: Mapping[str, Any], config: MonitorsConfig) -> list[Verdict]:
    """Return the verdicts on a stage by what it has recorded.

    Args:
        stage: Its name.
        stats: What it has recorded.
        config: Ranges and levels.
    """
    verdicts = []
    for monitor in MONITORS:
        threshold: Threshold = getattr(config, monitor.name)
        if monitor.stage == stage and threshold.level != "off":
            values = monitor.measure(stats)
            verdicts += [_verdict(monitor, threshold, about, value) for about, value in values.items()]
            if not values:
                verdicts.append(Verdict(monitor.name, "", UNMEASURED, None, f"{monitor.measured}: not measured"))
    return verdicts


def _verdict(monitor: Monitor, threshold: Threshold, about: str, value: float) -> Verdict:
    low, high = range_of(monitor, threshold)
    subject = f"{monitor.measured}{f' ({about})' if about else ''} is {value:.3g}"
    below, above = low is not None and value < low, high is not None and value > high
    if not math.isfinite(value):
        wrong = "which is no number: what it was measured on is broken"
    elif below or above:
        wrong = f"{f'below {low:g}' if below else f'above {high:g}'}: {monitor.outside}"
    else:
        return Verdict(monitor.name, about, OK, value, subject)
    return Verdict(monitor.name, about, threshold.level, value, f"{subject}, {wrong}. To do: {monitor.remedy}")
