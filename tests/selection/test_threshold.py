"""RS-DPO's rule: numbers by hand, then its laws."""

import math
import tracemalloc

import numpy as np
import pyarrow.parquet as pq
import pytest
from candidates import NAN, as_set, chosen
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.selection.threshold import gap_threshold, preference_prob, select_pairs

ETAS = st.floats(0.5, 0.99)
TAUS = st.floats(0.01, 100)


ROWS = st.tuples(st.integers(0, 6), st.integers(0, 6))
CELLS = st.one_of(st.just(NAN), st.integers(-8, 8).map(lambda n: n / 4))
"""Quarters: sums and differences of them are exact, and ties are frequent."""


@st.composite
def matrices(draw):
    n, k = draw(ROWS)
    return np.array(draw(st.lists(st.lists(CELLS, min_size=k, max_size=k), min_size=n, max_size=n))).reshape(n, k)


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
