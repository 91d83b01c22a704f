"""All monitors. Add one by writing its row; its thresholds become a field of the section `monitors`.

A range is where we, or the source that the row names, saw runs that were sound; a run outside of it is to be looked at,
and need not be wrong. "Ours" stands for runs of the shipped configurations (docs/report.md lists all).
"""

from tasks.monitors.monitor import Monitor
from tasks.monitors.of_evaluation import OF_EVALUATION
from tasks.monitors.of_training import OF_TRAINING

MONITORS: tuple[Monitor, ...] = (*OF_TRAINING, *OF_EVALUATION)
"""In the order in which they are judged."""
