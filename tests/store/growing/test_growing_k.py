"""More completions a prompt: only those that are missing are drawn."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from growing import PROMPTS, decoding, draft, prompts, rows_of, score
from random_groups import tokenizer as words

import tasks.sampling.completions
import tasks.sampling.drawing
from tasks.pairs import build_pairs
from tasks.sampling.completions import sample_slices
from tasks.sampling.transformers_engine import TransformersEngine
from tasks.selection.strategies import PairsConfig
from tasks.store.folders import Store
from tasks.store.manifests import read_files
from tasks.store.parquet import read_table
from tasks.store.slices import commit_slices, groups_of, read_whole_prompts
from tasks.training.dpo_examples import ExampleBuilder

pytestmark = pytest.mark.usefixtures("one_thread")


IDS = ("prompt_id", "chosen_id", "rejected_id")
OF_REWARDS = {"profile", "widest_gap_quantiles"}
"""Counts that show the last bits of the rewards, which depend on the batches."""


def files_of(store: Store) -> dict[str, int]:
    """Return the files of all completions with the nanosecond of their writing."""
    found = Path(store.root).glob("tables/completions/*/*/*/*.parquet")
    return {str(path): path.stat().st_mtime_ns for path in found}


@pytest.fixture
def added(monkeypatch) -> list[tuple[int, int]]:
    """Seed and number of samples of each request that an engine got."""
    requests: list[tuple[int, int]] = []

    class Watched(TransformersEngine):
        def add(self, number, prompt, seed, count):
            requests.append((seed, count))
            super().add(number, prompt, seed, count)

    monkeypatch.setattr(
        tasks.sampling.completions, "open_engine", lambda model, how, _, trust: Watched(model, how, trust)
    )
    return requests


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.slow)])
def test_k_may_grow_and_shrink(engine, policy, tmp_path):
    if engine == "vllm":
        pytest.importorskip("vllm")
    grown, whole = Store(str(tmp_path / "grown")), Store(str(tmp_path / "whole"))
    at_once, sampled = sample_slices(whole, policy, prompts(whole), decoding(4, engine=engine))
    assert sampled == PROMPTS
    few, _ = sample_slices(grown, policy, prompts(grown), decoding(2, engine=engine))
    more, sampled = sample_slices(grown, policy, prompts(grown), decoding(4, engine=engine))
    assert sampled == PROMPTS
    again, sampled = sample_slices(grown, policy, prompts(grown), decoding(2, engine=engine))
    assert sampled == 0
    assert rows_of(more) == rows_of(at_once)
    assert rows_of(again) == rows_of(few) == [row for row in rows_of(at_once) if row["completion_id"] < 2]
    assert sum(len(read_table(slice_.part)) for slice_ in more) == PROMPTS * 4, "nothing is drawn twice"
    fewer, _ = sample_slices(whole, policy, prompts(whole), decoding(3, engine=engine))
    assert rows_of(fewer) == [row for row in rows_of(at_once) if row["completion_id"] < 3]


def test_only_what_is_missing_is_asked_for(policy, store, added):
    sample_slices(store, policy, prompts(store), decoding(2))
    first = list(added)
    added.clear()
    sample_slices(store, policy, prompts(store), decoding(5))
    assert {count for _, count in first} == {2}
    assert sorted(added) == sorted((seed + 2, 3) for seed, _ in first)
    added.clear()
    sample_slices(store, policy, prompts(store, PROMPTS + 1), decoding(5))
    assert [count for _, count in added] == [5]


def test_new_parts_are_cut_as_those_that_hold_the_first_completions(policy, store):
    sample_slices(store, policy, prompts(store), decoding(2, part_size=4))
    sample_slices(store, policy, prompts(store), decoding(3, part_size=9))
    slices, _ = sample_slices(store, policy, prompts(store), decoding(6, part_size=2))
    groups = groups_of(slices)
    assert len(groups) == 3  # parts of 4, 4 and 1 prompts
    for table, group in zip(read_whole_prompts(slices), groups, strict=True):
        assert table.num_rows == sum(slice_.num_rows() for slice_ in group)
        assert set(Counter(table["prompt_id"].to_pylist()).values()) == {6}


@pytest.mark.parametrize("how", ["flip", "delete"])
def test_a_damaged_part_is_drawn_again_alone(how, policy, store, damage):
    for k in (2, 3, 5):
        slices, _ = sample_slices(store, policy, prompts(store), decoding(k))
    before, kept = rows_of(slices), files_of(store)
    middle = next(slice_.part for slice_ in slices if set(slice_.read()["completion_id"].to_pylist()) == {2})
    file = read_files(middle)["rows.parquet"].path
    damage(f"{middle.uri}/{file}", how)
    again, sampled = sample_slices(store, policy, prompts(store), decoding(5))
    assert rows_of(again) == before
    assert sampled == middle.rows
    now = files_of(store)
    assert {path for path in now if now[path] != kept.get(path)} == {store.path(f"{store.folder_of(middle)}/{file}")}


def test_pairs_and_groups_do_not_depend_on_how_completions_came(policy, reward_model, tmp_path):
    found = []
    for name, steps in (("grown", [(2, 2, 3), (3, 3, 7), (4, 1, PROMPTS)]), ("whole", [(4, 3, PROMPTS)])):
        store = Store(str(tmp_path / name))
        for k, part_size, number in steps:
            slices, _ = sample_slices(store, policy, prompts(store, number), decoding(k, part_size))
        drawn = commit_slices(draft(store, "sample", "s"), "completions", slices, {})
        scored = score(store, reward_model, drawn)
        pairs = build_pairs.body(draft(store, "pairs", "p"), scored, drawn, PairsConfig(tau=0.01, truncated="keep"))
        builder = ExampleBuilder(pairs, prompts(store), words(), 100)
        groups = pa.concat_tables(builder.build(store, drawn)).sort_by("prompt_id").to_pylist()
        figures = {name: value for name, value in pairs.stats.items() if name not in OF_REWARDS}
        ids = sorted(zip(*(read_table(pairs)[name].to_pylist() for name in IDS), strict=True))
        found.append((drawn.digest, scored.rows, ids, figures, groups))
    assert found[0] == found[1]
