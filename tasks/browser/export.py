"""Pairs of chosen prompts as JSONL in TRL's preference format: conversational `prompt`, `chosen` and `rejected`."""

import json
from collections.abc import Iterator
from typing import Any

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
    """Yield the pairs of the prompts that filters leave as lines of JSON in ASCII, those of some prompts at a time.

    Raises:
        ConfigurationError: A filter says nothing that can be understood; raised before the first line.
    """
    where, values = filters.where()
    found = index.query(f"SELECT place FROM {{db}}.prompts WHERE pairs > 0 AND {where} ORDER BY place", values)
    places = [row["place"] for row in found]
    starts = range(0, len(places), PROMPTS_AT_ONCE)
    return (_lines(index, places[start : start + PROMPTS_AT_ONCE]) for start in starts)


def _lines(index: RunIndex, places: list[int]) -> str:
    rows = index.query(_PAIRS, {"places": places, "first": places[0], "last": places[-1]})
    return "".join(f"{json.dumps(_example(row))}\n" for row in rows)


def _example(row: dict[str, Any]) -> dict[str, Any]:
    sides = {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
    return {"prompt": row["messages"], **sides}
