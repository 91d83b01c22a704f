"""Pairs of chosen prompts as JSONL in TRL's preference format: conversational `prompt`, `chosen` and `rejected`."""

import json
from collections.abc import Iterator

from tasks.browser.filters import Filters
from tasks.browser.index import RunIndex

PROMPTS_AT_ONCE = 500
_PAIRS = """
SELECT messages, w.completion AS chosen, l.completion AS rejected
FROM (SELECT unnest($places) AS place) JOIN {db}.pairs USING (place) JOIN {db}.prompts USING (place)
    JOIN {db}.samples AS w ON w.place = pairs.place AND w.completion_id = chosen_id
    JOIN {db}.samples AS l ON l.place = pairs.place AND l.completion_id = rejected_id
WHERE w.place BETWEEN $first AND $last AND l.place BETWEEN $first AND $last
ORDER BY pairs.place, reward_gap DESC, chosen_id, rejected_id
"""


def export_pairs(index: RunIndex, filters: Filters) -> Iterator[str]:
    """Yield the pairs of the prompts that filters leave, some prompts at a time: lines of JSON, ASCII alone.

    Raises:
        ConfigurationError: A filter says nothing that can be understood; raised before the first line.
    """
    where, values = filters.where()
    found = index.query(f"SELECT place FROM {{db}}.prompts WHERE pairs > 0 AND {where} ORDER BY place", values)
    return _lines(index, [row["place"] for row in found])


def _lines(index: RunIndex, places: list[int]) -> Iterator[str]:
    for start in range(0, len(places), PROMPTS_AT_ONCE):
        some = places[start : start + PROMPTS_AT_ONCE]
        for row in index.query(_PAIRS, {"places": some, "first": some[0], "last": some[-1]}):
            sides = {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
            yield json.dumps({"prompt": row["messages"], **sides}) + "\n"
