"""Write the table of monitors into docs/report.md, from the table in the code.

python docs/monitors.py

The page's head is written by hand. What follows the marker is written by this command; a test compares the two.
"""

from pathlib import Path

from tasks.monitors.monitor import Monitor
from tasks.monitors.table import MONITORS

PAGE = Path(__file__).parent / "report.md"
MARKER = "<!-- What follows is written by `python docs/monitors.py`. -->\n"


def page() -> str:
    """Return the whole page: its head as it is, and the monitors as they are now."""
    head = PAGE.read_text().partition(MARKER)[0]
    rows = ["| monitor, after | what is measured | healthy | source | outside | to do |", "|---|---|---|---|---|---|"]
    return head + MARKER + "\n" + "\n".join([*rows, *map(row, MONITORS), ""])


def row(monitor: Monitor) -> str:
    """Return a monitor as a row of the table."""
    low, high = ("" if bound is None else f"{bound:g}" for bound in (monitor.low, monitor.high))
    healthy = f"{low} to {high}" if low and high else f"≥ {low}" if low else f"≤ {high}"
    name = f"`{monitor.name}`, {monitor.stage}"
    cells = (name, monitor.measured, healthy, monitor.source, monitor.outside, monitor.remedy)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page())
