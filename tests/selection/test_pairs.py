"""Pair selection: Algorithm 1 by hand and as a plain double loop, its laws, the rules around it, and the stage."""

import itertools
import math
import socket
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tasks.pairs import build_pairs, pair_table, pairs_of_parts, write_pairs
from tasks.rewards.candidates import gather
from tasks.selection.annotation import AnnotationSettings, annotated_pairs
from tasks.selection.best_vs_worst import best_against_worst
from tasks.selection.counts import PairCounts
from tasks.selection.pairs import Candidates, PairIndices
from tasks.selection.strategies import PairsConfig, select
from tasks.selection.threshold import gap_threshold, preference_prob, select_pairs
from tasks.store.artifacts import DamagedArtifactError, Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store, read_files
from tasks.store.growing import GrowingTable, Slice, commit_slices
from tasks.store.parquet import read_table
from tasks.store.schemas import SCHEMAS, format_digest

NAN = math.nan
ETAS = st.floats(0.5, 0.99)
TAUS = st.floats(0.01, 100)
ROWS = st.tuples(st.integers(0, 6), st.integers(0, 6))
CELLS = st.one_of(st.just(NAN), st.integers(-8, 8).map(lambda n: n / 4))
"""Quarters: sums and differences of them are exact, and ties are frequent."""


@st.composite
def matrices(draw):
    n, k = draw(ROWS)
    return np.array(draw(st.lists(st.lists(CELLS, min_size=k, max_size=k), min_size=n, max_size=n))).reshape(n, k)


def as_set(pairs):
    return {(int(r), int(j), int(i)) for r, j, i in zip(*pairs, strict=True)}


def algorithm_1(rewards, tau, eta):
    """Algorithm 1 of arXiv:2402.10038 as it is written: every j and l of every prompt."""
    threshold = tau * math.log(eta / (1 - eta))
    return [
        (row, j, i)
        for row, own in enumerate(np.asarray(rewards).tolist())
        for j in range(len(own))
        for i in range(len(own))
        if own[j] - own[i] > threshold
    ]


def candidates(rewards, texts=None, cut=()):
    rewards = np.array(rewards, np.float64)
    truncated = np.zeros(rewards.shape, bool)
    for place in cut:
        truncated[place] = True
    texts = np.arange(rewards.size).reshape(rewards.shape) if texts is None else np.array(texts)
    ids, distinct = pa.array([f"p{row}" for row in range(len(rewards))]), pa.array(map(str, range(rewards.size)))
    return Candidates(ids, rewards, truncated, np.ones(rewards.shape, int), texts, distinct, texts >= 0)


def chosen(found):
    """Return (chosen, rejected) of a single prompt."""
    assert set(found.row.tolist()) <= {0}
    return list(zip(found.chosen.tolist(), found.rejected.tolist(), strict=True))


# Numbers by hand


def test_preference_prob_by_hand():
    gaps = np.array([[0.0, math.log(3)], [-math.log(3), 2 * math.log(3)]])
    np.testing.assert_allclose(preference_prob(gaps, 1.0), [[0.5, 0.75], [0.25, 0.9]], rtol=1e-12)
    assert preference_prob(np.array(2 * math.log(3)), 2.0) == pytest.approx(0.75)
    np.testing.assert_array_equal(preference_prob(np.array([1e6, -1e6, np.inf]), 1.0), [1, 0, 1])


def test_gap_threshold_by_hand():
    assert gap_threshold(1.0, 0.5) == 0
    assert gap_threshold(2.0, 0.75) == 2 * math.log(3)
    assert gap_threshold(1.0, 0.85) == pytest.approx(1.7346010553881064)


def test_pairs_by_hand():
    # The threshold is log(3) = 1.0986: 2 beats 0 and 0.5, 0.5 beats nothing.
    found = select_pairs(np.array([[0.0, 2.0, 0.5], [1.0, 1.0, 1.0]]), tau=1.0, eta=0.75)
    assert [array.tolist() for array in found] == [[0, 0], [1, 1], [0, 2]]
    assert all(np.issubdtype(array.dtype, np.integer) for array in found)


@pytest.mark.parametrize(("tau", "eta"), [(1.0, 0.75), (2.0, 0.75), (0.25, 0.85), (3.0, 0.5)])
def test_threshold_is_strict(tau, eta):
    gap = gap_threshold(tau, eta)
    assert select_pairs(np.array([[0.0, gap]]), tau, eta).row.size == 0
    assert as_set(select_pairs(np.array([[0.0, np.nextafter(gap, np.inf)]]), tau, eta)) == {(0, 1, 0)}


def test_eta_one_half_orders_every_unequal_pair():
    found = select_pairs(np.array([[3.0, 1.0, 2.0, 1.0]]), 1.0, 0.5)
    assert chosen(found) == [(0, 1), (0, 2), (0, 3), (2, 1), (2, 3)]


def test_missing_samples_make_no_pair():
    assert as_set(select_pairs(np.array([[NAN, 9.0, 0.0], [NAN, NAN, 5.0], [NAN, NAN, NAN]]), 1.0, 0.85)) == {(0, 1, 2)}


@pytest.mark.parametrize("shape", [(3, 1), (0, 4), (3, 0), (0, 0)])
def test_fewer_than_two_completions_make_no_pair(shape):
    found = select_pairs(np.arange(math.prod(shape), dtype=float).reshape(shape), 1.0, 0.5)
    assert [array.size for array in found] == [0, 0, 0]


def test_ties_make_no_pair():
    assert select_pairs(np.full((2, 5), 7.0), 1e-9, 0.5).row.size == 0


@pytest.mark.parametrize(
    ("rewards", "tau", "eta", "message"),
    [
        ([[0.0, 1.0]], 0.0, 0.85, r"pairs.tau = 0.0 must be a positive number"),
        ([[0.0, 1.0]], -1.0, 0.85, r"pairs.tau = -1.0 must"),
        ([[0.0, 1.0]], math.inf, 0.85, r"pairs.tau = inf must"),
        ([[0.0, 1.0]], NAN, 0.85, r"pairs.tau = nan must"),
        ([[0.0, 1.0]], 1.0, 0.3, r"pairs.eta = 0.3 must be at least 0.5 .* mirror"),
        ([[0.0, 1.0]], 1.0, 1.0, r"pairs.eta = 1.0 must be .* below 1"),
        ([[0.0, 1.0]], 1.0, NAN, r"pairs.eta = nan must"),
        ([0.0, 1.0], 1.0, 0.85, r"shape \(2,\), expected \(n, k\)"),
        ([[[0.0]]], 1.0, 0.85, r"shape \(1, 1, 1\), expected \(n, k\)"),
    ],
)
def test_arguments_out_of_bounds(rewards, tau, eta, message):
    with pytest.raises(ValueError, match=message):
        select_pairs(np.array(rewards), tau, eta)


def test_preference_prob_needs_a_positive_tau():
    with pytest.raises(ValueError, match=r"pairs.tau = 0"):
        preference_prob(np.zeros(2), 0)


# Laws


@given(matrices(), TAUS, ETAS)
def test_equals_algorithm_1(rewards, tau, eta):
    found = select_pairs(rewards, tau, eta)
    assert list(zip(*(array.tolist() for array in found), strict=True)) == algorithm_1(rewards, tau, eta)


@pytest.mark.parametrize("k", [2, 11, 16])
def test_equals_algorithm_1_over_many_blocks(k, monkeypatch):
    monkeypatch.setattr("tasks.selection.threshold.BLOCK", 7)
    rewards = np.random.default_rng(k).normal(size=(50, k))
    rewards[::5, 0] = NAN
    rewards[3] = rewards[3, 0]
    found = select_pairs(rewards, 0.7, 0.8)
    assert list(zip(*(array.tolist() for array in found), strict=True)) == algorithm_1(rewards, 0.7, 0.8)


@given(
    shape=st.tuples(st.integers(0, 9), st.integers(1, 20)),
    values=st.sampled_from([(-1.0, 0.0, 1.0), (-2.0, 0.0, 0.5, 2.0, NAN), (-math.inf, 0.0, 3.0, math.inf, NAN), None]),
    tau=TAUS,
    eta=ETAS,
    block=st.integers(1, 2000),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_algorithm_1_for_any_k_and_block(shape, values, tau, eta, block, seed):
    rng = np.random.default_rng(seed)
    rewards = rng.normal(scale=3, size=shape) if values is None else rng.choice(values, shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.selection.threshold.BLOCK", block)
        found = select_pairs(rewards, tau, eta)
    assert list(zip(*(array.tolist() for array in found), strict=True)) == algorithm_1(rewards, tau, eta)


@pytest.mark.parametrize("tau", [0.05, 0.25, 1.0])
@pytest.mark.parametrize("eta", [0.5, 0.7, 0.85, 0.99])
def test_equals_algorithm_1_on_real_scores(test_data, tau, eta):
    table = pq.read_table(test_data / "best_of_n/tulu2_13b_200x11.parquet")
    rewards = np.full((200, 11), NAN)
    row = np.unique(table["prompt_id"].to_pylist(), return_inverse=True)[1]
    rewards[row, table["completion_id"].to_numpy()] = table["reward"].to_numpy()
    assert not np.isnan(rewards).any()
    found = select_pairs(rewards, tau, eta)
    assert list(zip(*(array.tolist() for array in found), strict=True)) == algorithm_1(rewards, tau, eta)
    assert (found.row.size > 0) == (gap_threshold(tau, eta) < np.ptp(rewards, axis=1).max())


@given(matrices(), TAUS, ETAS, st.integers(-1000, 1000))
def test_a_constant_added_to_all_rewards_changes_nothing(rewards, tau, eta, shift):
    assert as_set(select_pairs(rewards + shift, tau, eta)) == as_set(select_pairs(rewards, tau, eta))


@given(matrices(), TAUS, ETAS, st.sampled_from([0.125, 0.5, 2.0, 1024.0]))
def test_only_reward_over_tau_matters(rewards, tau, eta, scale):
    assert as_set(select_pairs(scale * rewards, scale * tau, eta)) == as_set(select_pairs(rewards, tau, eta))


@given(matrices(), TAUS, ETAS, ETAS)
def test_pairs_shrink_as_eta_rises(rewards, tau, eta, other):
    low, high = sorted((eta, other))
    assert as_set(select_pairs(rewards, tau, high)) <= as_set(select_pairs(rewards, tau, low))


@given(matrices(), TAUS, TAUS, ETAS)
def test_pairs_shrink_as_tau_rises(rewards, tau, other, eta):
    low, high = sorted((tau, other))
    assert as_set(select_pairs(rewards, high, eta)) <= as_set(select_pairs(rewards, low, eta))


@given(matrices(), TAUS, ETAS)
def test_a_pair_and_its_mirror_never_both_pass(rewards, tau, eta):
    found = as_set(select_pairs(rewards, tau, eta))
    assert not found & {(row, i, j) for row, j, i in found}
    assert all(rewards[row, j] > rewards[row, i] for row, j, i in found)


@given(matrices(), TAUS, ETAS)
def test_negated_rewards_give_mirrored_pairs(rewards, tau, eta):
    mirrored = {(row, i, j) for row, j, i in as_set(select_pairs(-rewards, tau, eta))}
    assert mirrored == as_set(select_pairs(rewards, tau, eta))


@given(matrices(), TAUS, ETAS)
def test_kept_pairs_are_those_with_a_preference_prob_above_eta(rewards, tau, eta):
    gap = rewards[:, :, None] - rewards[:, None, :]
    prob = preference_prob(gap, tau)
    assume(not np.any(np.abs(prob - eta) < 1e-9))  # where rounding decides, the rule is the gap's
    assert as_set(select_pairs(rewards, tau, eta)) == {tuple(map(int, place)) for place in np.argwhere(prob > eta)}


@given(matrices(), TAUS, ETAS, st.randoms(use_true_random=False))
def test_order_of_prompts_and_completions_does_not_matter(rewards, tau, eta, random):
    rows, columns = list(range(rewards.shape[0])), list(range(rewards.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    found = as_set(select_pairs(rewards[np.ix_(rows, columns)], tau, eta))
    assert {(rows[row], columns[j], columns[i]) for row, j, i in found} == as_set(select_pairs(rewards, tau, eta))


def test_memory_does_not_hold_k_by_k_for_all_prompts():
    rewards = np.zeros((200_000, 16))
    rewards[::20, 3] = 5.0  # a pair with each of the 15 others, in a twentieth of the prompts
    every = rewards.size * 16  # one byte for each comparison: 51 MB; the differences would take 410 MB
    tracemalloc.start()
    try:
        found = select_pairs(rewards, 1.0, 0.85)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.row.size == 10_000 * 15
    assert peak < 0.8 * every


def test_memory_where_every_prompt_has_a_pair():
    rewards = np.zeros((200_000, 16))
    rewards[:, 0] = 5.0
    tracemalloc.start()
    try:
        found = select_pairs(rewards, 1.0, 0.85)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    kept = sum(array.nbytes for array in found)
    assert found.row.size == 200_000 * 15
    assert peak - 2 * kept < 0.25 * rewards.size * 16 * 8


# Strategies and truncation. One prompt, rewards 0, 4, 8 (truncated), 1.

CUT = candidates([[0.0, 4.0, 8.0, 1.0]], cut=[(0, 2)])


@pytest.mark.parametrize(
    ("strategy", "truncated", "expected"),
    [
        ("threshold", "keep", [(1, 0), (1, 3), (2, 0), (2, 1), (2, 3)]),
        ("threshold", "drop", [(1, 0), (1, 3)]),
        ("threshold", "never_chosen", [(1, 0), (1, 3)]),
        ("best_vs_worst", "keep", [(2, 0)]),
        ("best_vs_worst", "drop", [(1, 0)]),
        ("best_vs_worst", "never_chosen", [(1, 0)]),
        ("annotation", "keep", [(0, 1), (2, 3)]),
        ("annotation", "drop", [(0, 1), (2, 3)]),
    ],
)
def test_truncated_completion_with_the_highest_reward(strategy, truncated, expected):
    config = PairsConfig(eta=0.85, strategy=strategy, truncated=truncated)
    assert chosen(select(CUT, config)) == expected


@pytest.mark.parametrize(
    ("strategy", "truncated", "expected"),
    [
        ("threshold", "keep", [(1, 0), (2, 0), (2, 1)]),
        ("threshold", "drop", [(2, 1)]),
        ("threshold", "never_chosen", [(1, 0), (2, 0), (2, 1)]),
        ("best_vs_worst", "keep", [(2, 0)]),
        ("best_vs_worst", "drop", [(2, 1)]),
        ("best_vs_worst", "never_chosen", [(2, 0)]),
    ],
)
def test_truncated_completion_with_the_lowest_reward(strategy, truncated, expected):
    found = select(
        candidates([[0.0, 4.0, 8.0]], cut=[(0, 0)]), PairsConfig(eta=0.85, strategy=strategy, truncated=truncated)
    )
    assert chosen(found) == expected


@pytest.mark.parametrize("truncated", ["drop", "never_chosen"])
@pytest.mark.parametrize("strategy", ["threshold", "best_vs_worst"])
def test_a_prompt_whose_completions_are_all_truncated_has_no_pair(strategy, truncated):
    config = PairsConfig(strategy=strategy, truncated=truncated)
    found = select(candidates([[0.0, 9.0], [0.0, 9.0]], cut=[(0, 0), (0, 1)]), config)
    assert as_set(found) == {(1, 1, 0)}


def test_best_against_worst_by_hand():
    rewards = np.array([[1.0, 3.0, 3.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0, 2.0], [NAN, 5.0, NAN, 4.0, NAN], [NAN] * 5])
    assert as_set(best_against_worst(rewards, rewards)) == {(0, 1, 3), (2, 1, 3)}
    # eta and tau have no say: a gap of 0.01 is a pair.
    assert chosen(select(candidates([[0.0, 0.01]]), PairsConfig(strategy="best_vs_worst"))) == [(1, 0)]


def test_annotation_takes_the_data_sets_side_whatever_the_rewards():
    given = candidates([[0.0, 9.0, 3.0, NAN], [1.0, 2.0, NAN, NAN]], texts=[[0, 1, 2, 3], [4, 5, -1, -1]])
    assert as_set(annotated_pairs(given, AnnotationSettings())) == {(0, 0, 1), (0, 2, 3), (1, 0, 1)}
    assert as_set(select(given, PairsConfig(strategy="annotation"))) == {(0, 0, 1), (0, 2, 3), (1, 0, 1)}


@pytest.mark.parametrize("strategy", ["threshold", "best_vs_worst", "annotation"])
def test_identical_texts_are_never_paired(strategy):
    config = PairsConfig(strategy=strategy)
    assert select(candidates([[9.0, 0.0]], texts=[[1, 1]]), config).row.size == 0
    assert as_set(select(candidates([[9.0, 0.0]], texts=[[1, 2]]), config)) == {(0, 0, 1)}


def test_identical_texts_take_no_place_under_the_cap():
    config = PairsConfig(eta=0.5, max_pairs_per_prompt=1)
    found = select(candidates([[9.0, 0.0, 1.0]], texts=[[1, 1, 2]]), config)
    assert chosen(found) == [(0, 2)]


def test_the_cap_holds_for_annotations():
    config = PairsConfig(strategy="annotation", max_pairs_per_prompt=1)
    assert chosen(select(candidates([[1.0, 0.0, 5.0, 0.0]]), config)) == [(2, 3)]


# Joining by id


def completions_table(rows):
    """Return a completions table of (prompt_id, completion_id, text, finish_reason)."""
    columns = ("prompt_id", "completion_id", "completion", "finish_reason")
    values = [dict(zip(columns, row, strict=True)) | {"token_ids": [1], "num_tokens": 1} for row in rows]
    return pa.Table.from_pylist(values, schema=SCHEMAS["completions"])


def rewards_table(rows):
    """Return a rewards table of (prompt_id, completion_id, reward)."""
    columns = ("prompt_id", "completion_id", "reward")
    return pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows], schema=SCHEMAS["rewards"])


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
    counts = PairCounts()
    digest = write_pairs(pairs_of_parts(parts, config, counts), folder)
    rows = [row for path in sorted(folder.iterdir()) for row in pq.read_table(path).to_pylist()]
    assert len(rows) == counts.pairs
    return sorted(map(tuple, map(dict.values, rows))), digest, counts.stats()


@given(
    prompts=st.integers(1, 12),
    k=st.integers(1, 8),
    strategy=st.sampled_from(["threshold", "best_vs_worst"]),
    cap=st.sampled_from([None, 2]),
    data=st.data(),
)
@settings(max_examples=30)
def test_parts_of_any_size_and_order_give_the_same(tmp_path_factory, prompts, k, strategy, cap, data):
    rewards = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(prompts, k)).tolist()
    config = PairsConfig(eta=0.6, strategy=strategy, max_pairs_per_prompt=cap)
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
    write_pairs(pairs_of_parts(parts_of(rewards, cuts), config, PairCounts()), tmp_path / "two")
    files = sorted((tmp_path / "two").iterdir())
    assert [path.name for path in files] == ["rows-000000.parquet", "rows-000001.parquet"]
    assert [pq.read_metadata(path).num_rows for path in files] == [3, 1]
    empty = pairs_of_parts(parts_of(rewards, [[1], [4]]), config, PairCounts())
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

    counts = PairCounts()
    write_pairs(pairs_of_parts(parts(), PairsConfig(), counts), tmp_path)
    assert counts.prompts == 20_000
    assert counts.pairs > 5000 * 4
    assert max(held[20:]) < 1.1 * max(held[:20])


def test_gap_quantiles_do_not_depend_on_the_parts():
    rewards = np.random.default_rng(0).normal(size=(30_001, 2)) * np.linspace(0, 1, 30_001)[:, None]
    whole, cut = PairCounts(), PairCounts()
    truncated, none = np.zeros(rewards.shape, bool), np.empty(0, np.intp)
    whole.add(rewards, truncated, none)
    for start in range(0, len(rewards), 7):
        cut.add(rewards[start : start + 7], truncated[start : start + 7], none)
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
    counts = PairCounts()
    counts.add(np.array([[1.0, 2.0]]), np.ones((1, 2), bool), np.empty(0, np.intp))
    message = counts.explain_none(PairsConfig())
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
