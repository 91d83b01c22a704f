"""What a monitor is."""

from typing import NamedTuple

from tasks.monitors.measures import Measure


class Monitor(NamedTuple):
    """What is measured, where it is healthy, and what to do where it is not."""

    name: str
    stage: str
    """The stage whose stats it measures, as soon as they are there."""
    measured: str
    """What is measured, with its unit."""
    measure: Measure
    low: float | None
    """Least healthy value; None: any."""
    high: float | None
    """Greatest healthy value; None: any."""
    source: str
    """Where the range comes from."""
    outside: str
    """What a value outside of the range means."""
    remedy: str
