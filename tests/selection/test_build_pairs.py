"""Pairs part by part, and the stage."""

import itertools
import math
import socket

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from candidates import candidates, completions_table, rewards_table
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.pairs import bound_of_parts, build_pairs, pair_table, pairs_of_parts, write_pairs
from tasks.selection.counts import PairCounts
from tasks.selection.pairs import PairIndices, no_pairs
from tasks.selection.strategies import SETTINGS, PairsConfig
from tasks.store.artifacts import Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.parquet import read_table
from tasks.store.schemas import SCHEMAS, format_digest
from tasks.store.slices import Slice, commit_slices

# A row


def test_pair_table_by_hand():
    given_rewards = candidates([[0.0, 0.0], [1.0, 1.0 + math.log(9)]])
    table = pair_table(given_rewards, PairIndices(np.array([1]), np.array([1]), np.array([0])), tau=2.0)
    assert table.schema == SCHEMAS["pairs"]
    row = table.to_pylist()[0]
    assert (row["prompt_id"], row["chosen_id"], row["rejected_id"]) == ("p1", 1, 0)
    assert row["rejected_reward"] == 1.0
    assert row["chosen_reward"] == pytest.approx(1 + math.log(9), rel=1e-6)
    assert row["reward_gap"] == pytest.approx(math.log(9), rel=1e-6)
    assert row["preference_prob"] == pytest.approx(0.75, rel=1e-6)  # sigma(log(9) / 2) = 3 / 4


# Part by part


def parts_of(rewards, cuts):
    """Cut prompts "000", "001", ... into parts: tables of their completions, every fifth text alike, and rewards."""
    parts = []
    for rows in cuts:
        places = [(f"{row:03}", j, rewards[row][j]) for row in rows for j in range(len(rewards[row]))]
        own = [(id_, j, f"text {j % 5}", "length" if j == 3 else "stop") for id_, j, _ in places]
        parts.append((completions_table(own), rewards_table(places)))
    return parts


def streamed(parts, folder, config):
    """Return the pairs that the parts give, their digest, and what was counted."""
    folder.mkdir()
    counts = PairCounts(config)
    digest = write_pairs(pairs_of_parts(parts, counts, bound_of_parts(parts, counts)), folder)
    rows = [row for path in sorted(folder.iterdir()) for row in pq.read_table(path).to_pylist()]
    assert len(rows) == counts.pairs
    return sorted(map(tuple, map(dict.values, rows))), digest, counts.stats()


@given(
    prompts=st.integers(1, 12),
    k=st.integers(1, 8),
    strategy=st.sampled_from(sorted(SETTINGS.keys() - {"annotation", "pareto"})),
    cap=st.sampled_from([None, 2]),
    most=st.sampled_from([None, 3]),
    data=st.data(),
)
@settings(max_examples=30)
def test_parts_of_any_size_and_order_give_the_same(tmp_path_factory, prompts, k, strategy, cap, most, data):
    rewards = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(prompts, k)).tolist()
    config = PairsConfig(eta=0.6, strategy=strategy, max_pairs_per_prompt=cap, max_pairs=most, rip={"most_gap": 3.0})
    order = data.draw(st.permutations(range(prompts)))
    edges = sorted(data.draw(st.sets(st.integers(1, prompts), max_size=4)) | {0, prompts})
    folder = tmp_path_factory.mktemp("streamed")
    once = streamed(parts_of(rewards, [range(prompts)]), folder / "once", config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.pairs.FILE_ROWS", data.draw(st.integers(1, 50)))
        cuts = [order[start:end] for start, end in itertools.pairwise(edges)]
        assert streamed(parts_of(rewards, cuts), folder / "parts", config) == once


def test_small_parts_share_a_file_and_no_file_is_empty(tmp_path, monkeypatch):
    (tmp_path / "two").mkdir()
    (tmp_path / "none").mkdir()
    monkeypatch.setattr("tasks.pairs.FILE_ROWS", 3)
    # 1, 0, 2, 1 and 0 pairs: the first three parts fill a file.
    rewards = [[0.0, 9.0], [0.0, 0.0], [0.0, 0.0, 9.0], [0.0, 9.0], [0.0]]
    config, cuts = PairsConfig(truncated="keep"), [[row] for row in range(5)]
    write_pairs(pairs_of_parts(parts_of(rewards, cuts), PairCounts(config)), tmp_path / "two")
    files = sorted((tmp_path / "two").iterdir())
    assert [path.name for path in files] == ["rows-000000.parquet", "rows-000001.parquet"]
    assert [pq.read_metadata(path).num_rows for path in files] == [3, 1]
    empty = pairs_of_parts(parts_of(rewards, [[1], [4]]), PairCounts(config))
    assert write_pairs(empty, tmp_path / "none") == format_digest(0)
    assert list((tmp_path / "none").iterdir()) == []


def test_memory_does_not_grow_with_the_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.pairs.FILE_ROWS", 5000)
    rng, held = np.random.default_rng(0), []

    def parts():
        for number in range(40):
            ids = pa.array([f"{number:03}-{row:060}" for row in range(500)]).take(pa.array(np.arange(4000) // 8))
            keys = {"prompt_id": ids, "completion_id": np.tile(np.arange(8), 500)}
            texts = {"completion": [str(i) for i in range(4000)], "finish_reason": ["stop"] * 4000}
            texts["num_tokens"] = [1] * 4000
            yield pa.table(keys | texts), pa.table(keys | {"reward": rng.normal(size=4000)})
            held.append(pa.total_allocated_bytes())

    counts = PairCounts(PairsConfig())
    write_pairs(pairs_of_parts(parts(), counts), tmp_path)
    assert counts.prompts == 20_000
    assert counts.pairs > 5000 * 4
    assert max(held[20:]) < 1.1 * max(held[:20])


def test_gap_quantiles_do_not_depend_on_the_parts():
    rewards = np.random.default_rng(0).normal(size=(30_001, 2)) * np.linspace(0, 1, 30_001)[:, None]
    whole, cut = PairCounts(PairsConfig()), PairCounts(PairsConfig())
    whole.add(candidates(rewards), no_pairs())
    for start in range(0, len(rewards), 7):
        cut.add(candidates(rewards[start : start + 7]), no_pairs())
    assert cut.stats() == whole.stats()
    gaps = np.abs(rewards[:, 0] - rewards[:, 1])
    assert whole.quantiles()["50%"] == pytest.approx(np.median(gaps), rel=0.05)


# The stage


def stored(store, parts):
    """Commit completions and rewards, one part each, as sampling and scoring do; return both artifacts."""
    drafts = {}
    for kind in ("completions", "rewards"):
        slices = []
        for number, rows in enumerate(parts):
            table = completions_table([row[:4] for row in rows]) if kind == "completions" else None
            if table is None:
                table = rewards_table([(row[0], row[1], row[4]) for row in rows])
            growing = GrowingTable(store, kind, Provenance(stage=kind, version=1, key="k"))
            slices.append(Slice(growing.append(f"part{number}", table)))
        draft = Draft(store, Provenance(stage=kind, version=1, key=f"{kind}-{len(parts)}"))
        drafts[kind] = commit_slices(draft, kind, slices, {})
    return drafts["rewards"], drafts["completions"]


def run_build_pairs(store, parts, **config):
    rewards, completions = stored(store, parts)
    key = f"key{len(store.list('build_pairs'))}"
    return build_pairs.body(
        Draft(store, Provenance(stage="build_pairs", version=1, key=key)), rewards, completions, PairsConfig(**config)
    )


PARTS = [
    [("a", 0, "w", "stop", 0.0), ("a", 1, "x", "stop", 2.0), ("b", 0, "y", "stop", 1.0), ("b", 1, "z", "length", 9.0)],
    [("c", 0, "w", "stop", 1.0), ("c", 1, "x", "stop", 1.5), ("c", 2, "y", "stop", 4.0)],
]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_stage_reads_every_part_and_counts(tmp_path, cache):
    artifact = run_build_pairs(Store(str(tmp_path / "store")), PARTS)
    rows = read_table(artifact).sort_by([("prompt_id", "ascending"), ("rejected_id", "ascending")]).to_pylist()
    assert [(row["prompt_id"], row["chosen_id"], row["rejected_id"]) for row in rows] == [
        ("a", 1, 0),
        ("c", 2, 0),
        ("c", 2, 1),
    ]
    assert artifact.rows == 3
    stats = artifact.stats
    assert (stats["prompts"], stats["prompts_without_pair"]) == (3, 1)  # b: its best is truncated
    assert (stats["completions"], stats["truncated_completions"]) == (7, 1)
    assert stats["possible_pairs"] == 1 + 1 + 3
    assert stats["acceptance_rate"] == pytest.approx(3 / 5)
    assert stats["widest_gap_quantiles"]["max"] == 8
    assert stats["widest_gap_quantiles"]["50%"] == 3  # of 2, 8 and 3
    assert list((cache / "work" / socket.gethostname()).iterdir()) == []


def test_digest_does_not_depend_on_the_parts(tmp_path, cache):
    one = run_build_pairs(Store(str(tmp_path / "one")), [PARTS[0] + PARTS[1]])
    two = run_build_pairs(Store(str(tmp_path / "two")), [PARTS[1], PARTS[0]])
    other = run_build_pairs(Store(str(tmp_path / "other")), PARTS, truncated="keep")
    assert one.digest == two.digest
    assert other.digest != one.digest


def test_the_stage_keeps_so_many_in_all_and_says_how_many_there_were(tmp_path, cache):
    store = Store(str(tmp_path / "store"))
    every = read_table(run_build_pairs(store, PARTS)).to_pylist()
    two = run_build_pairs(store, PARTS, max_pairs=2)
    assert two.rows == 2
    assert (two.stats["pairs_before_max_pairs"], two.stats["acceptance_rate"]) == (3, pytest.approx(2 / 5))
    assert all(row in every for row in read_table(two).to_pylist())
    (one,) = read_table(run_build_pairs(store, list(reversed(PARTS)), max_pairs=1)).to_pylist()
    assert one in read_table(two).to_pylist()


def test_no_pair_names_eta_tau_and_the_gaps(tmp_path, cache):
    store = Store(str(tmp_path / "store"))
    with pytest.raises(ValueError, match="no pair was selected from 7 completions of 3 prompts") as caught:
        run_build_pairs(store, PARTS, eta=0.9, tau=50.0)
    message = str(caught.value)
    gap = f"{50 * math.log(9):.4g}"
    for piece in ("pairs.eta = 0.9", "pairs.tau = 50", gap, "quantiles", "'max': 8.0", "eta or tau"):
        assert piece in message
    assert store.list("build_pairs") == []
    assert list((cache / "work" / socket.gethostname()).iterdir()) == []


def test_no_pair_where_all_are_truncated_says_so():
    counts = PairCounts(PairsConfig())
    counts.add(candidates([[1.0, 2.0]], cut=[(0, 0), (0, 1)]), no_pairs())
    message = counts.explain_none()
    assert message.endswith("all are truncated: raise sampling.max_new_tokens, or set pairs.truncated = drop to keep")


def test_the_real_file_gives_pairs_of_different_texts_only(test_data, tmp_path, cache):
    table = pq.read_table(test_data / "best_of_n/tulu2_13b_200x11.parquet").to_pylist()
    rows = [(r["prompt_id"], r["completion_id"], r["completion"], "stop", r["reward"]) for r in table]
    half = sorted({r[0] for r in rows})[100]
    parts = [[r for r in rows if r[0] < half], [r for r in rows if r[0] >= half]]
    artifact = run_build_pairs(Store(str(tmp_path / "store")), parts, tau=0.05, eta=0.5)
    expected = {
        (a[0], a[1], b[1])
        for part in parts
        for a in part
        for b in part
        if a[0] == b[0] and np.float32(a[4]) > np.float32(b[4]) and a[2] != b[2]
    }
    found = {(r["prompt_id"], r["chosen_id"], r["rejected_id"]) for r in read_table(artifact).to_pylist()}
    assert found == expected
    assert artifact.stats["completions"] == 2200
    assert artifact.stats["prompts"] == 200
