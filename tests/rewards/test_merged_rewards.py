"""Rewards of merged completions: of a completion that two parts drew, the reward is that of the text that was kept."""

import pyarrow as pa
import pytest
from growing import completions, rows_of
from small_stores import PROVENANCE

from tasks.config.settings import ScoringConfig
from tasks.rewards.table import find_rewards, part_of, rewards_table
from tasks.sampling.drawing import Request
from tasks.store.artifacts import Artifact
from tasks.store.compaction import LARGE, compact
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import Slice

MODEL = Artifact(kind="model", uri="file:///model", digest="d" * 64)


def drawn(prompt_ids: str, text: str) -> pa.Table:
    rows = completions([Request(prompt_id, 0, 1) for prompt_id in prompt_ids])
    field = SCHEMAS["completions"].field("completion")
    return rows.set_column(2, field, pa.array([f"{text} {prompt_id}" for prompt_id in prompt_ids]))


def score(store: Store, part: Artifact, reward: float) -> None:
    ids = Slice(part).read(["prompt_id", "completion_id"])
    rows = ids.append_column("reward", pa.array([reward] * ids.num_rows, pa.float32()))
    rewards_table(store, MODEL, ScoringConfig()).append(part_of(Slice(part)), rows)


def merge(table: GrowingTable) -> Artifact:
    (merged,) = compact(table, table.look(), LARGE, 1)
    return merged


def rewards(store: Store, part: Artifact) -> tuple[dict[str, float], set[str]]:
    """Return the stored rewards of a part's completions by prompt, and the prompts without one."""
    (found,) = find_rewards(rewards_table(store, MODEL, ScoringConfig()), [Slice(part)])
    given = rows_of(found.rewards) if found.rewards else []
    return (
        {row["prompt_id"]: row["reward"] for row in given},
        {row["prompt_id"] for slice_ in found.unscored for row in slice_.read().to_pylist()},
    )


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_a_completion_that_was_left_out_gives_its_reward_to_no_other(store, again):
    table = GrowingTable(store, "completions", PROVENANCE)
    table.append("0", drawn("ab", "kept"))  # by a run that was killed before it scored
    other = table.append("1", drawn("bc", "other"))  # by another run at the same time, on a GPU that rounds otherwise
    score(store, other, 1.0)
    merged = merge(table)
    if again:
        score(store, table.append("2", drawn("d", "late")), 2.0)
        merged = merge(table)
    texts = {row["prompt_id"]: row["completion"] for row in rows_of([Slice(merged)])}
    assert texts["b"] == "kept b"
    given, missing = rewards(store, merged)
    assert "b" not in given
    assert missing >= {"a", "b"}
    assert given.get("d", 2.0) == 2.0


def test_rewards_of_parts_that_lost_no_row_are_found(store):
    table = GrowingTable(store, "completions", PROVENANCE)
    first, second = table.append("0", drawn("ab", "kept")), table.append("1", drawn("bc", "other"))
    third = table.append("2", drawn("d", "late"))
    for number, part in enumerate((first, second, third)):
        score(store, part, float(number))
    given, missing = rewards(store, merge(table))
    assert (given, missing) == ({"a": 0.0, "b": 0.0, "d": 2.0}, {"c"})
