"""Two runs side by side: their settings and figures where they differ, and their prompts one by one."""

from typing import Any, NamedTuple

from tasks.browser.index import RunIndex
from tasks.browser.run_files import RunFiles
from tasks.config.errors import ConfigurationError
from tasks.inspection.lineage import settings_of

PAGE = 50
"""Prompts of a page."""
ORDERS = {
    "more pairs": "right_pairs - left_pairs DESC, prompt_id",
    "fewer pairs": "right_pairs - left_pairs, prompt_id",
    "higher reward": "change DESC NULLS LAST, prompt_id",
    "lower reward": "change NULLS LAST, prompt_id",
}
"""Name -> SQL: of the second run against the first."""
Row = dict[str, Any]


class Prompts(NamedTuple):
    """A page of the prompts that both runs have."""

    rows: list[Row]
    both: int
    only_left: int
    only_right: int
    start: int


def different_settings(left: RunFiles, right: RunFiles) -> list[tuple[str, Any, Any]]:
    """Return the settings whose values differ: name, the first run's value, the second's; None: not set."""
    ours, theirs = (dict(settings_of(files.settings())) for files in (left, right))
    names = sorted(ours.keys() | theirs.keys())
    return [(name, ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)]


def figures(files: RunFiles) -> dict[str, Any]:
    """Return what a run's manifests say of it: name -> value, None where the run has no such output."""
    pairs, rewards = files.stats("pairs"), files.stats("rewards")
    found: dict[str, Any] = {
        "prompts": files.rows("prompts"),
        "completions": files.rows("completions"),
        "pairs": files.rows("pairs"),
        "prompts without a pair": pairs.get("prompts_without_pair"),
        "acceptance rate": pairs.get("acceptance_rate"),
        "truncated completions": pairs.get("truncated_completions"),
        "mean reward of the completions": rewards.get("reward_mean"),
        "policy": files.model("completions", "policy") or None,
        "reward model": files.model("rewards", "reward_model") or None,
    }
    evaluation = files.stats("evaluation")
    for policy, own in evaluation.get("policies", {}).items():
        for name, reward in own.get("rewards", {}).items():
            found[f"mean {name} of {policy}"] = reward.get("mean")
        for name, won in own.get("win_rates", {}).items():
            found[f"win rate of {policy} by {name}"] = (won or {}).get("win_rate")
        if kl := own.get("divergence", {}).get("kl_sequence"):
            found[f"KL of {policy} a sequence"] = kl
    return found


def shared_prompts(left: RunIndex, right: RunIndex, order: str, start: int) -> Prompts:
    """Return the prompts that both runs have, with the figures of each: `left_pairs`, `right_pairs` and so on.

    Raises:
        ConfigurationError: There is no such order.
    """
    if order not in ORDERS:
        raise ConfigurationError(f"order {order[:80]!r} is not one of: {', '.join(ORDERS)}")
    columns = ", ".join(
        f"{side}.{name} AS {label}_{name}"
        for side, label in (("l", "left"), ("r", "right"))
        for name in ("pairs", "reward", "gap")
    )
    tables = f"{{db}}.prompts AS l JOIN {right.name}.prompts AS r USING (prompt_id)"
    rows = left.query(
        f"WITH page AS (SELECT l.place, prompt_id, {columns}, r.reward - l.reward AS change FROM {tables} "
        f"ORDER BY {ORDERS[order]} LIMIT {PAGE} OFFSET {start:d}) "
        "SELECT page.*, messages[-1].content[:300] AS text FROM page JOIN {db}.prompts USING (place) "
        f"ORDER BY {ORDERS[order].replace('prompt_id', 'page.prompt_id')}"
    )
    (both,) = left.query(f"SELECT count(*) AS number FROM {tables}")
    ours, theirs = (index.query("SELECT count(*) AS number FROM {db}.prompts")[0]["number"] for index in (left, right))
    return Prompts(rows, both["number"], ours - both["number"], theirs - both["number"], start)
