"""RSO: what Algorithm 1 accepts, and the games that are played."""

import math

import numpy as np
import pytest
from candidates import NAN, as_set, candidates, chosen
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.selection.draws import completion_draws, prompt_seeds
from tasks.selection.statistical_rejection import accepted
from tasks.selection.strategies import PairsConfig, select

ALL = 1e9
"""A beta that accepts every completion in the first turn."""


def found(rewards, texts=None, cut=(), **settings):
    return select(candidates(rewards, texts, cut), PairsConfig(strategy="statistical_rejection", **settings))


def algorithm_1(rewards, seed, beta, count):
    """Algorithm 1 of arXiv:2309.06657 for one prompt, its uniform numbers being those that the prompt draws."""
    left, order, turn = {j: r for j, r in enumerate(rewards) if not math.isnan(r)}, [], 0
    while len(order) < count and left:
        draws = (completion_draws(np.array([seed]), len(rewards), turn)[0] >> np.uint64(11)) * 2.0**-53
        highest, remove = max(left.values()), []
        for j, reward in left.items():
            if draws[j] >= math.exp((reward - highest) / beta):
                continue
            order.append(j)
            remove.append(j)
            if len(order) == count:
                break
        for j in remove:
            left.pop(j)
        turn += 1
    return order


@given(
    rewards=hnp.arrays(
        np.float64, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.integers(-3, 3) | st.just(NAN)
    ),
    beta=st.sampled_from([0.01, 0.5, 2.0, ALL]),
    count=st.integers(2, 8),
    seed=st.integers(0, 99),
)
def test_accepts_what_algorithm_1_accepts(rewards, beta, count, seed):
    seeds = prompt_seeds(seed, [f"p{row}" for row in range(len(rewards))])
    order = accepted(rewards, seeds, beta, count)
    for row, own in enumerate(rewards.tolist()):
        expected = algorithm_1(own, seeds[row], beta, count)
        assert order[row].tolist() == expected + [-1] * (count - len(expected))


def test_a_gap_of_beta_log_2_is_accepted_in_every_second_first_turn():
    seeds = prompt_seeds(0, [f"p{row}" for row in range(4000)])
    order = accepted(np.tile([-0.5 * math.log(2), 0.0], (4000, 1)), seeds, 0.5, 2)
    assert {tuple(own) for own in order.tolist()} == {(0, 1), (1, 0)}
    assert abs((order[:, 0] == 0).mean() - 0.5) < 5 * 0.5 / math.sqrt(4000)


def test_games_by_hand():
    # All six are accepted in the first turn, in the order of their numbers.
    rewards = [[1.0, 4.0, 6.0, 2.0, 5.0, 3.0]]
    first_round = [(1, 0), (2, 3), (4, 5)]
    assert chosen(found(rewards, beta_rso=ALL)) == first_round
    # Then the winners: 6 over 4, 5 having no game; then 6 over 5.
    expected = sorted([*first_round, (2, 1), (2, 4)])
    assert chosen(found(rewards, beta_rso=ALL, ranking_rso="tournament")) == expected
    assert chosen(found(rewards, beta_rso=ALL, accepted_rso=3)) == [(1, 0)]  # the third has no game
    assert chosen(found(rewards, beta_rso=ALL, accepted_rso=3, ranking_rso="tournament")) == [(1, 0), (2, 1)]


def test_a_low_beta_takes_the_highest_rewards():
    # 5 and 4 are accepted first, in this order, then 3 and 2.
    found_pairs = found([[2.0, 5.0, 0.0, 3.0, 1.0, 4.0]], beta_rso=0.001, accepted_rso=4)
    assert chosen(found_pairs) == [(1, 5), (3, 0)]


def test_a_tournament_of_m_has_m_less_one_games():
    rewards = np.random.default_rng(0).normal(size=(50, 16))
    for count in (2, 5, 8, 20):
        for ranking, games in (("first_round", min(count, 16) // 2), ("tournament", min(count, 16) - 1)):
            pairs = found(rewards, accepted_rso=count, ranking_rso=ranking)
            assert np.bincount(pairs.row, minlength=50).tolist() == [games] * 50
            assert (rewards[pairs.row, pairs.chosen] > rewards[pairs.row, pairs.rejected]).all()
    losers = found(rewards, accepted_rso=20, ranking_rso="tournament")
    best = rewards.argmax(axis=1)
    assert losers.row.size == 50 * 15
    assert not [(row, i) for row, _, i in as_set(losers) if i == best[row]]


def test_a_tie_is_no_pair_and_the_first_one_plays_on():
    assert found([[1.0, 1.0]]).row.size == 0
    assert chosen(found([[1.0, 1.0, 3.0]], beta_rso=ALL, ranking_rso="tournament")) == [(2, 0)]


def test_completions_of_one_text_are_one_candidate():
    rewards, texts = [[4.0, 4.0, 2.0, 1.0, 4.0]], [[7, 7, 8, 9, 7]]
    assert chosen(found(rewards, texts, beta_rso=ALL)) == [(0, 2)]  # three candidates: 0, 2 and 3
    assert chosen(found([[NAN, 4.0, 2.0]], [[7, 7, 8]], beta_rso=ALL)) == [(1, 2)]


@pytest.mark.parametrize(
    ("truncated", "expected"), [("drop", [(2, 0)]), ("never_chosen", [(2, 3)]), ("keep", [(1, 0), (2, 3)])]
)
def test_truncated_completions(truncated, expected):
    rewards, cut = [[1.0, 4.0, 3.0, 2.0]], [(0, 1)]
    assert chosen(found(rewards, cut=cut, beta_rso=ALL, truncated=truncated)) == expected


def test_higher_rewards_are_accepted_more_often():
    rewards = np.tile(np.linspace(0, 3, 16), (500, 1))
    seeds = prompt_seeds(1, [f"p{row}" for row in range(500)])
    means = [np.take_along_axis(rewards, accepted(rewards, seeds, beta, 8), 1).mean() for beta in (0.01, 0.5, 2, ALL)]
    assert means[0] == pytest.approx(rewards[0, 8:].mean())
    assert means == sorted(means, reverse=True)
