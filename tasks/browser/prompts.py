"""Lists of a run's prompts, and one prompt with all that the run has for it."""

from typing import Any, NamedTuple

from tasks.browser.diff import WordDiff, word_diff
from tasks.browser.filters import FLAGS, FLAGS_SQL, Filters
from tasks.browser.index import RunIndex
from tasks.config.errors import ConfigurationError

PAGE = 50
"""Prompts of a page."""
Row = dict[str, Any]


_FOUND = f"""
WITH found AS MATERIALIZED (SELECT place, pairs, gap, reward, length FROM {{db}}.prompts WHERE $where)
SELECT count(*) AS number, coalesce(sum(pairs), 0)::BIGINT AS pairs,
    (SELECT coalesce(list(place), []) FROM (SELECT place FROM found ORDER BY $order LIMIT {PAGE} OFFSET ?)) AS places
FROM found
"""
"""The condition is looked at once, and the columns of a page are read for its prompts alone."""


class Listing(NamedTuple):
    """A page of the prompts that filters leave."""

    rows: list[Row]
    number: int
    """Prompts that the filters leave."""
    of: int
    """Prompts of the run."""
    pairs: int
    """Pairs of the prompts that the filters leave."""
    start: int


def list_prompts(index: RunIndex, filters: Filters, start: int) -> Listing:
    """Return prompts from a place >= 0 in the filtered list on, each with its figures and `flags`.

    Raises:
        ConfigurationError: A filter says nothing that can be understood.
    """
    where, values = filters.where()
    (found,) = index.query(_FOUND.replace("$where", where).replace("$order", filters.order_sql()), [*values, start])
    (whole,) = index.query("SELECT count(*) AS number FROM {db}.prompts")
    rows = index.query(
        f"SELECT * EXCLUDE (searched), messages[-1].content[:400] AS text, {FLAGS_SQL} "
        "FROM {db}.prompts WHERE place IN (SELECT unnest($places)) ORDER BY list_position($places, place)",
        {"places": found["places"]},
    )
    return Listing(rows, found["number"], whole["number"], found["pairs"], start)


def sources(index: RunIndex) -> list[Row]:
    """Return the sources of the prompts with their numbers, at most 200."""
    return index.query(
        "SELECT source, count(*) AS number FROM {db}.prompts GROUP BY source ORDER BY number DESC, source LIMIT 200"
    )


def flag_counts(index: RunIndex) -> dict[str, int]:
    """Return how many prompts each monitor finds."""
    counts = ", ".join(f'count(*) FILTER ({flag.sql}) AS "{name}"' for name, flag in FLAGS.items())
    (found,) = index.query(f"SELECT {counts} FROM {{db}}.prompts")
    return found


def show_prompt(index: RunIndex, prompt_id: str) -> Row:
    """Return a prompt with its figures, `flags`, `completions` in order of reward, and `kept`, its pairs.

    Raises:
        ConfigurationError: The run has no such prompt.
    """
    found = index.query(
        f"SELECT * EXCLUDE (searched), {FLAGS_SQL} FROM {{db}}.prompts WHERE prompt_id = ?", [prompt_id]
    )
    if not found:
        raise ConfigurationError(f"run {index.files.run.id} has no prompt {prompt_id[:80]!r}")
    (prompt,) = found
    completions = index.query(
        "SELECT * EXCLUDE (place) FROM {db}.samples WHERE place = ? ORDER BY reward DESC NULLS LAST, completion_id",
        [prompt["place"]],
    )
    kept = index.query(
        "SELECT * EXCLUDE (place) FROM {db}.pairs WHERE place = ? "
        "ORDER BY reward_gap DESC, chosen_id, rejected_id LIMIT 1000",
        [prompt["place"]],
    )
    return {**prompt, "completions": _with_others(index, prompt, completions), "kept": kept}


def neighbours(index: RunIndex, filters: Filters, at: int) -> dict[str, Row | None]:
    """Return the prompts before and after a place in the filtered list: `previous` and `next`, each with `at`."""
    where, values = filters.where()
    first = max(0, at - 1)
    rows = index.query(
        f"SELECT prompt_id FROM {{db}}.prompts WHERE {where} ORDER BY {filters.order_sql()} LIMIT 3 OFFSET {first:d}",
        values,
    )
    by_place = {first + number: {**row, "at": first + number} for number, row in enumerate(rows)}
    return {"previous": by_place.get(at - 1), "next": by_place.get(at + 1)}


def compare_pair(prompt: Row, asked: str) -> tuple[Row, WordDiff] | None:
    """Return a pair that is asked for as `chosen-rejected`, or the widest, with its texts compared; None: no pair."""
    pairs = {f"{pair['chosen_id']}-{pair['rejected_id']}": pair for pair in prompt["kept"]}
    pair = pairs.get(asked) or next(iter(prompt["kept"]), None)
    if pair is None:
        return None
    by_id = {row["completion_id"]: row for row in prompt["completions"]}
    chosen, rejected = by_id.get(pair["chosen_id"]), by_id.get(pair["rejected_id"])
    if chosen is None or rejected is None:
        return None
    found = {**pair, "chosen": chosen, "rejected": rejected}
    return found, word_diff(chosen["completion"], rejected["completion"])


def _with_others(index: RunIndex, prompt: Row, completions: list[Row]) -> list[Row]:
    """Add `others` to each completion: its reward by every other reward model that scored it, in the order of names."""
    rows = index.query(
        "SELECT completion_id, model, reward FROM {db}.others WHERE prompt_id = ? ORDER BY model", [prompt["prompt_id"]]
    )
    given = {(row["completion_id"], row["model"]): row["reward"] for row in rows}
    models = list(dict.fromkeys(row["model"] for row in rows))
    return [
        {**row, "others": {model: given.get((row["completion_id"], model)) for model in models}} for row in completions
    ]
