"""Counts of what happens to the rows of a data file, and the limit on bad ones."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tasks.config import DataSource
from tasks.stage import log


@dataclass
class Tally:
    """Counts what happens to the rows of one file."""

    source: DataSource
    max_bad_fraction: float
    total: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, where: str) -> None:
        """Count a bad row."""
        self.bad[reason] += 1
        self.examples.setdefault(reason, where)

    def check(self) -> None:
        """Refuse a file with too many bad rows.

        Raises:
            ValueError: Names the reasons and the first row of each.
        """
        bad = self.bad.total()
        if bad > self.max_bad_fraction * self.total:
            reasons = "; ".join(f"{reason}: {n} (first {self.examples[reason]})" for reason, n in self.bad.items())
            raise ValueError(
                f"{self.source.path}: {bad} of {self.total} rows are bad, more than data.max_bad_fraction = "
                f"{self.max_bad_fraction:g}: {reasons}. Mend the file or raise the fraction"
            )
        if bad:
            log(f"{self.source.path}: left out {bad} bad rows of {self.total}: {dict(self.bad)}")

    def stats(self) -> dict[str, Any]:
        """Return the counts for the manifest."""
        return {"read": self.total, "bad": dict(self.bad), "left_out": dict(self.left_out)}
