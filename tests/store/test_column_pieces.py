"""Figures over a table read the columns that they are made of, and no others."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_stores import PROVENANCE

from tasks.sampling.completions import completion_stats
from tasks.store import parquet, verify
from tasks.store.artifacts import DamagedArtifactError
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.manifests import read_files
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import Slice, column_pieces


@pytest.fixture
def slices(store):
    """Return four parts of three prompts with four completions each, of which the last two are slices."""
    table = GrowingTable(store, "completions", PROVENANCE)
    parts = [table.append(f"part-{number}", rows_of(number)) for number in range(4)]
    some = Slice(parts[2], frozenset({"p2-0", "p2-1"}), frozenset({0, 2}))
    return [Slice(parts[0]), Slice(parts[1]), some, Slice(parts[3], None, frozenset({1}))]


def rows_of(number):
    rows = [
        {
            "prompt_id": f"p{number}-{prompt}",
            "completion_id": id_,
            "completion": "x" * 100_000,
            "token_ids": list(range(number + id_)),
            "num_tokens": number + id_,
            "finish_reason": "length" if id_ == 1 else "stop",
        }
        for prompt in range(3)
        for id_ in range(4)
    ]
    return pa.Table.from_pylist(rows, SCHEMAS["completions"])


def test_stats_are_those_of_the_whole_rows(slices):
    rows = [row for slice_ in slices for row in slice_.read().to_pylist()]
    tokens = [row["num_tokens"] for row in rows]
    assert len(rows) == 12 + 12 + 4 + 3
    assert completion_stats(slices) == {
        "completions": 31,
        "tokens": sum(tokens),
        "mean_tokens": sum(tokens) / 31,
        "truncation_rate": (3 + 3 + 3) / 31,
    }


def test_columns_come_in_the_order_of_the_slices(slices):
    found = [piece["num_tokens"].to_pylist() for piece in column_pieces(slices, ["num_tokens"])]
    assert found == [slice_.read(["num_tokens"])["num_tokens"].to_pylist() for slice_ in slices]
    assert found[2] == [2, 4, 2, 4]
    assert all(piece.column_names == ["num_tokens"] for piece in column_pieces(slices, ["num_tokens"]))


@pytest.mark.parametrize("store_uri", ["file"], indirect=True)
def test_of_local_parts_no_other_column_is_decoded_and_no_byte_is_read_twice(slices, monkeypatch):
    asked, read, opened, chunks = [], pq.read_table, [], verify.read_chunks

    def counted(source, columns=None):
        asked.append(columns)
        return read(source, columns=columns)

    monkeypatch.setattr(parquet.pq, "read_table", counted)
    monkeypatch.setattr(verify, "read_chunks", lambda fs, path, size: opened.append(path) or chunks(fs, path, size))
    list(column_pieces(slices, ["num_tokens", "finish_reason"]))
    needed = ["num_tokens", "finish_reason"]
    of_slices = [[*needed, "prompt_id", "completion_id"], [*needed, "completion_id"]]
    assert sorted(asked) == sorted([needed, needed, *of_slices]), "the threads ask in any order"
    assert len(opened) == len(slices), "the bytes that are compared with the hash are those that are decoded"


def test_a_part_that_is_gone_is_named(slices, damage):
    (entry,) = read_files(slices[1].part).values()
    damage(f"{slices[1].part.uri}/{entry.path}", "delete")
    with pytest.raises(DamagedArtifactError, match="is missing"):
        list(column_pieces(slices, ["num_tokens"]))


def test_rewards_come_whole(tmp_path):
    table = GrowingTable(Store(str(tmp_path)), "rewards", PROVENANCE)
    columns = {"prompt_id": ["a", "b"], "completion_id": [0, 0], "reward": [0.5, float("nan")]}
    parts = [table.append(name, pa.table(columns).cast(SCHEMAS["rewards"])) for name in ("one", "two")]
    found = np.concatenate([piece["reward"].to_numpy() for piece in column_pieces(map(Slice, parts), ["reward"])])
    assert found.tolist()[::2] == [0.5, 0.5]
    assert np.isnan(found[1::2]).all()
