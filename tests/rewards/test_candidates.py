"""Completions and rewards are joined by id."""

import numpy as np
import pyarrow as pa
import pytest
from candidates import NAN, completions_table, rewards_table
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.rewards.candidates import gather
from tasks.store.artifacts import DamagedArtifactError, Provenance
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.manifests import read_files
from tasks.store.slices import Slice

COMPLETIONS = [("b", 0, "x", "stop"), ("b", 1, "y", "length"), ("a", 0, "x", "stop"), ("a", 2, "x", "stop")]
REWARDS = [("b", 0, 0.5), ("b", 1, 1.5), ("a", 0, 2.5), ("a", 2, 3.5)]


@given(st.permutations(COMPLETIONS), st.permutations(REWARDS))
@settings(max_examples=30, deadline=None)
def test_gather_joins_by_id_whatever_the_order(completions, rewards):
    found = gather(completions_table(completions), rewards_table(rewards))
    assert found.prompt_ids.to_pylist() == ["a", "b"]
    np.testing.assert_array_equal(found.rewards, [[2.5, NAN, 3.5], [0.5, 1.5, NAN]])
    np.testing.assert_array_equal(found.truncated, [[False, False, False], [False, True, False]])
    same = found.texts[0, 0]
    assert found.texts[0, 2] == found.texts[1, 0] == same
    assert found.texts[1, 1] != same


def test_gather_reads_tables_of_many_chunks():
    halves = [completions_table(COMPLETIONS[:1]), completions_table(COMPLETIONS[1:])]
    scores = [rewards_table(REWARDS[3:]), rewards_table(REWARDS[:3])]
    found = gather(pa.concat_tables(halves), pa.concat_tables(scores))
    np.testing.assert_array_equal(found.rewards, [[2.5, NAN, 3.5], [0.5, 1.5, NAN]])


def test_gather_takes_more_text_than_an_arrow_array_holds():
    texts = [letter * 2**20 for letter in "abcdefghijklmnop"]
    chunk = pa.array(texts, pa.string())  # 16 MB, of which 130 chunks share one copy
    chunks = 130
    names = [f"p{number:03d}" for number in range(chunks) for _ in texts]
    ids = [number for _ in range(chunks) for number in range(len(texts))]
    completions = pa.table(
        {
            "prompt_id": names,
            "completion_id": ids,
            "completion": pa.chunked_array([chunk] * chunks),
            "num_tokens": [1] * len(ids),
            "finish_reason": ["stop"] * len(ids),
        }
    )
    rewards = pa.table({"prompt_id": names, "completion_id": ids, "reward": np.zeros(len(ids))})
    assert completions["completion"].nbytes > 2**31
    found = gather(completions, rewards)
    assert found.texts.shape == (chunks, len(texts))
    assert (found.texts == found.texts[0]).all()
    assert [found.distinct_texts[place].as_py()[0] for place in found.texts[0].tolist()] == list("abcdefghijklmnop")


def test_only_some_columns_are_decoded_and_all_bytes_are_verified(tmp_path, damage):
    table = completions_table([(id_, i, id_ * i, "stop") for id_ in "ab" for i in range(4)])
    tokens = pa.array(np.random.default_rng(0).integers(0, 2**31 - 1, (8, 2000)).tolist(), pa.list_(pa.int32()))
    table = table.set_column(table.column_names.index("token_ids"), "token_ids", tokens)  # most of the file
    provenance = Provenance(stage="completions", version=1, key="k")
    part = GrowingTable(Store(str(tmp_path)), "completions", provenance).append("one", table)
    columns = ["finish_reason", "prompt_id"]
    assert Slice(part).read(columns).equals(table.select(columns))
    assert Slice(part, frozenset("b")).read(columns).equals(table.select(columns).slice(4))
    damage(f"{part.uri}/{read_files(part)['rows.parquet'].path}", "flip")
    with pytest.raises(DamagedArtifactError, match="does not match"):
        Slice(part).read(columns)


def test_gather_refuses_missing_rewards():
    with pytest.raises(DamagedArtifactError, match="1 samples have no reward"):
        gather(completions_table(COMPLETIONS), rewards_table(REWARDS[1:]))


def test_gather_refuses_missing_completions():
    with pytest.raises(DamagedArtifactError, match="2 samples have no completion"):
        gather(completions_table(COMPLETIONS[:2]), rewards_table(REWARDS))
