"""Before and after: what an evaluation's policies said to the same held-out prompts."""

from typing import Any, NamedTuple

from tasks.browser.index import RunIndex
from tasks.config.errors import ConfigurationError

PAGE = 20
"""Prompts of a page."""
BINS = 30
ORDERS = {"gain": "change DESC NULLS LAST, prompt_id", "loss": "change NULLS LAST, prompt_id", "id": "prompt_id"}
"""Name -> SQL: the largest gain first, the largest loss, or by id."""
Row = dict[str, Any]


class Asked(NamedTuple):
    """Which two policies are compared, and by which reward."""

    before: str
    after: str
    reward: str


class BeforeAfter(NamedTuple):
    """A page of held-out prompts."""

    rows: list[Row]
    """With `messages`, mean rewards `before` and `after`, `change`, and `samples`: policy -> completions."""
    number: int
    start: int


def choices(index: RunIndex) -> tuple[list[str], list[str]]:
    """Return the policies, the reference first, and the rewards that an evaluation has."""
    reference = index.files.stats("evaluation").get("reference", "")
    found = index.query("SELECT DISTINCT policy, reward_name FROM {db}.evaluation ORDER BY policy, reward_name")
    policies = sorted({row["policy"] for row in found}, key=lambda name: (name != reference, name))
    return policies, sorted({row["reward_name"] for row in found})


def read_asked(index: RunIndex, before: str, after: str, reward: str) -> Asked | None:
    """Return what is compared, where nothing is said the reference and the first other policy; None: no evaluation.

    Raises:
        ConfigurationError: The evaluation has no such policy or reward.
    """
    policies, rewards = choices(index)
    if not policies:
        return None
    asked = Asked(before or policies[0], after or policies[min(1, len(policies) - 1)], reward or rewards[0])
    for name, known in ((asked.before, policies), (asked.after, policies), (asked.reward, rewards)):
        if name not in known:
            raise ConfigurationError(f"the evaluation has no {name[:80]!r}: choose among {', '.join(known)}")
    return asked


def before_after(index: RunIndex, asked: Asked, order: str, start: int) -> BeforeAfter:
    """Return held-out prompts with what both policies said.

    Raises:
        ConfigurationError: There is no such order.
    """
    if order not in ORDERS:
        raise ConfigurationError(f"order {order[:80]!r} is not one of: {', '.join(ORDERS)}")
    means = """
        WITH means AS (
            SELECT prompt_id, avg(reward) FILTER (policy = $before) AS before,
                avg(reward) FILTER (policy = $after) AS after, after - before AS change
            FROM {db}.evaluation WHERE reward_name = $reward GROUP BY prompt_id)
        SELECT means.*, held_out.messages, count(*) OVER () AS number
        FROM means LEFT JOIN {db}.held_out USING (prompt_id)
    """
    rows = index.query(f"{means} ORDER BY {ORDERS[order]} LIMIT {PAGE} OFFSET {start:d}", asked._asdict())
    samples = _samples(index, asked, [row["prompt_id"] for row in rows])
    for row in rows:
        row["samples"] = samples[row["prompt_id"]]
    return BeforeAfter(rows, rows[0]["number"] if rows else 0, start)


def histogram(index: RunIndex, asked: Asked) -> dict[str, Any] | None:
    """Return how the rewards of both policies are spread: `low`, `high`, and counts of `BINS` bins by policy."""
    rows = index.query(
        f"""WITH own AS (SELECT policy, reward FROM {{db}}.evaluation WHERE reward_name = $reward
            AND policy IN ($before, $after) AND reward IS NOT NULL AND isfinite(reward)),
        ends AS (SELECT min(reward) AS low, max(reward) AS high FROM own)
        SELECT policy, low, high, least({BINS - 1}, floor({BINS} * (reward - low) / nullif(high - low, 0)))::INT AS bin,
            count(*) AS number FROM own, ends GROUP BY ALL""",
        asked._asdict(),
    )
    if not rows:
        return None
    counts = {name: [0] * BINS for name in (asked.before, asked.after)}
    for row in rows:
        counts[row["policy"]][row["bin"] or 0] += row["number"]
    return {"low": rows[0]["low"], "high": rows[0]["high"], "counts": counts}


def _samples(index: RunIndex, asked: Asked, prompt_ids: list[str]) -> dict[str, dict[str, list[Row]]]:
    """Return the completions of prompts: prompt_id -> policy -> in order of their ids."""
    rows = index.query(
        "SELECT policy, prompt_id, completion_id, completion, reward FROM {db}.evaluation WHERE reward_name = $reward "
        "AND prompt_id IN (SELECT unnest($prompt_ids)) AND policy IN ($before, $after) ORDER BY completion_id",
        {**asked._asdict(), "prompt_ids": prompt_ids},
    )
    found: dict[str, dict[str, list[Row]]] = {name: {asked.before: [], asked.after: []} for name in prompt_ids}
    for row in rows:
        found[row["prompt_id"]][row["policy"]].append(row)
    return found
