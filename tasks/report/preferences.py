"""What the reward model's preferences were made of, source by source."""

from collections.abc import Mapping
from typing import Any

from tasks.report.blocks import Table
from tasks.report.facts import Facts

PREFERENCES = "load_preferences"


def source_table(facts: Facts) -> Table | None:
    """Return the counts of each source of preferences; None where there is one alone, or none yet."""
    sources = facts.stats(PREFERENCES).get("sources")
    if not sources:
        return None
    caption = "A row may hold several comparisons, or a part of one. Contradicting: pairs kept beside their opposites."
    head = ("preferences", "rows", "comparisons", "kept", "contradicting", "left out")
    return Table(head, [(name, *_cells(counts)) for name, counts in sources.items()], caption)


def _cells(counts: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = (counts["rows"], counts["read"], counts["kept"], counts.get("contradicting", 0))
    reasons = {**counts["left_out"], **counts["bad"]}
    return *(f"{number:,}" for number in numbers), "; ".join(f"{reason}: {n:,}" for reason, n in reasons.items())
