import hashlib

import numpy as np
import pyarrow as pa
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.store.schemas import SCHEMAS, add_digests, format_digest, rows_digest

KINDS = {"prompts", "demonstrations", "preferences", "completions", "rewards", "ref_logps", "pairs"}
KINDS |= {"added_preferences", "evaluation", "held_out_rewards", "comparison", "judgments", "predictions"}
KINDS |= {"training_log", "benchmarks", "benchmark_answers", "combined_rewards"}
ROW = st.fixed_dictionaries(
    {
        "prompt_id": st.text(max_size=3),
        "completion_id": st.integers(0, 2**31 - 1),
        "completion": st.text(max_size=8),
        "token_ids": st.lists(st.integers(0, 99), max_size=3),
        "num_tokens": st.integers(0, 9),
        "finish_reason": st.sampled_from(["stop", "length"]),
    }
)


def completions(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMAS["completions"])


def preference(margin: float | None) -> pa.Table:
    row = {"prompt_id": "p", "messages": [], "chosen": "a", "rejected": "b", "margin": margin}
    return pa.Table.from_pylist([row], schema=SCHEMAS["preferences"])


def test_every_schema_has_a_version():
    assert SCHEMAS.keys() == KINDS
    assert all(int(schema.metadata[b"version"]) >= 1 for schema in SCHEMAS.values())


def test_only_named_columns_may_be_null():
    nullable = {f"{kind}.{field.name}" for kind, schema in SCHEMAS.items() for field in schema if field.nullable}
    assert nullable == {
        "prompts.reference_completion",
        "prompts.metadata",
        "preferences.margin",
        "added_preferences.margin",
        "added_preferences.annotator",
        "added_preferences.metadata",
        "evaluation.reward",
        "benchmarks.value",
        "benchmarks.low",
        "benchmarks.high",
        "benchmark_answers.value",
        "judgments.prompt_tokens",
        "judgments.completion_tokens",
    }


def test_a_digest_is_the_sum_of_the_hashes_of_its_rows():
    lines = [b'{"completion_id":0,"prompt_id":"p"}', b'{"completion_id":1,"prompt_id":"p"}']
    hashes = [int(hashlib.sha256(line).hexdigest(), 16) for line in lines]
    table = pa.table({"prompt_id": ["p", "p"], "completion_id": [0, 1]})
    assert rows_digest(table) == sum(hashes) % 2**256
    assert rows_digest(table.slice(0, 0)) == 0


def test_a_digest_is_written_with_64_digits():
    assert format_digest(255) == "0" * 62 + "ff"
    assert format_digest(2**256 - 1) == "f" * 64
    assert add_digests([2**256 - 1, 3]) == 2


@given(rows=st.lists(ROW, max_size=6), data=st.data())
def test_order_and_parts_do_not_count(rows, data):
    table = completions(rows)
    columns = data.draw(st.permutations(table.column_names))
    assert rows_digest(completions(data.draw(st.permutations(rows))).select(columns)) == rows_digest(table)
    cut = data.draw(st.integers(0, len(rows)))
    parts = [table.slice(0, cut), table.slice(cut)]
    assert rows_digest(pa.concat_tables(parts)) == rows_digest(table)
    assert add_digests(map(rows_digest, parts)) == rows_digest(table)


@given(rows=st.lists(ROW, min_size=1, max_size=4), data=st.data())
def test_every_value_counts(rows, data):
    row, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.sampled_from(sorted(rows[0])))
    other = data.draw(ROW)[column]
    assume(other != rows[row][column])
    changed = [*rows[:row], {**rows[row], column: other}, *rows[row + 1 :]]
    assert rows_digest(completions(changed)) != rows_digest(completions(rows))


@given(rows=st.lists(ROW, min_size=1, max_size=4))
def test_a_repeated_row_counts(rows):
    assert rows_digest(completions([*rows, rows[0]])) != rows_digest(completions(rows))


@given(reward=st.floats(-(2.0**100), 2.0**100, width=32))
def test_the_next_float_counts(reward):
    following = float(np.nextafter(np.float32(reward), np.float32(np.inf)))
    tables = [
        pa.table({"prompt_id": ["p"], "completion_id": [0], "reward": [value]}, schema=SCHEMAS["rewards"])
        for value in (reward, following)
    ]
    assert rows_digest(tables[0]) != rows_digest(tables[1])


def test_a_column_s_name_counts():
    assert rows_digest(pa.table({"chosen": ["a"]})) != rows_digest(pa.table({"rejected": ["a"]}))


def test_numbers_that_are_not_finite_are_told_apart():
    margins = [None, float("nan"), float("inf"), float("-inf")]
    assert len({rows_digest(preference(margin)) for margin in margins}) == len(margins)
