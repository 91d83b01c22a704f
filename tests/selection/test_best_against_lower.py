"""One pair a prompt: the best against a random lower one, and against the one nearest to mean - 2 sd."""

from collections import Counter

import numpy as np
import pytest
from candidates import NAN, as_set, candidates, chosen

from tasks.selection.strategies import PairsConfig, select


def found(rewards, strategy, texts=None, cut=(), **settings):
    return select(candidates(rewards, texts, cut), PairsConfig(strategy=strategy, **settings))


# A random lower one


def test_the_best_against_each_lower_one_as_often():
    drawn = Counter()
    for seed in range(600):
        drawn.update(chosen(found([[1.0, 5.0, 0.0, 2.0, 5.0, NAN]], "best_vs_random", seed=seed)))
    assert drawn.keys() == {(1, 0), (1, 2), (1, 3)}  # the first of two best ones; it does not beat the other
    assert sum((count - 200) ** 2 / 200 for count in drawn.values()) < 13.8  # chi-square, 2 degrees: once in 1,000


def test_a_random_lower_one_has_another_text():
    texts = [[3, 3, 4]]  # a reward model may give one text two rewards, by a hair
    assert {tuple(chosen(found([[2.0, 1.0, 0.0]], "best_vs_random", texts, seed=s))[0]) for s in range(20)} == {(0, 2)}
    assert found([[2.0, 1.0]], "best_vs_random", [[3, 3]]).row.size == 0


@pytest.mark.parametrize("strategy", ["best_vs_random", "best_vs_low"])
def test_what_is_truncated_is_not_chosen(strategy):
    rewards, cut = [[9.0, 5.0, 0.0]], [(0, 0)]
    assert chosen(found(rewards, strategy, cut=cut)) == [(1, 2)]
    assert chosen(found(rewards, strategy, cut=cut, truncated="never_chosen")) == [(1, 2)]
    assert chosen(found(rewards, strategy, cut=[(0, 2)], truncated="never_chosen"))[0][0] == 0
    assert found([[9.0, 5.0]], strategy, cut=[(0, 0), (0, 1)], truncated="never_chosen").row.size == 0


def test_other_completions_do_not_change_what_is_drawn_among_the_same_ones():
    few = found([[5.0, 1.0, 2.0, 0.0]], "best_vs_random")
    more = found([[5.0, 1.0, 2.0, 0.0, NAN, NAN]], "best_vs_random")
    assert as_set(few) == as_set(more)


# Nearest to mean - 2 sd


def test_the_nearest_to_mean_minus_two_standard_deviations_by_hand():
    # Mean 4.5, sd over n: sqrt(8.25) = 2.87; mean - 2 sd = -1.24: of ten even rewards, the worst.
    assert chosen(found([list(map(float, range(10)))], "best_vs_low")) == [(9, 0)]
    # Nine of 10 and one of 0: mean 9, sd 3, mean - 2 sd = 3: nearer to 0 than to 10.
    assert chosen(found([[10.0] * 9 + [0.0]], "best_vs_low")) == [(0, 9)]
    # 0 and 4 among fourteen of 10: mean 9, sd sqrt(7.25) = 2.69, mean - 2 sd = 3.6: 4, not the worst.
    assert chosen(found([[10.0] * 14 + [0.0, 4.0]], "best_vs_low")) == [(0, 15)]
    assert chosen(found([[10.0] * 14 + [0.0, 4.0]], "best_vs_worst")) == [(0, 14)]


def test_missing_rewards_do_not_count():
    assert chosen(found([[10.0] * 14 + [0.0, 4.0, NAN, NAN]], "best_vs_low")) == [(0, 15)]


def test_of_two_equally_near_the_lower_one_and_of_equals_the_first():
    # Eleven of 9, three of 6, one of 0: mean 7.8, sd 2.4, mean - 2 sd = 3, as near to 0 as to 6.
    assert chosen(found([[6.0] * 3 + [9.0] * 11 + [0.0]], "best_vs_low")) == [(3, 14)]
    # Six of 8, two of -2: mean 5.5, sd 4.33, mean - 2 sd = -3.16.
    assert chosen(found([[8.0] * 6 + [-2.0] * 2], "best_vs_low")) == [(0, 6)]


def test_a_table_against_the_rule_as_it_is_written():
    rewards = np.random.default_rng(3).normal(size=(200, 16))
    expected = set()
    for row, own in enumerate(rewards.tolist()):
        best = own.index(max(own))
        low = sum(own) / 16 - 2 * (sum((r - sum(own) / 16) ** 2 for r in own) / 16) ** 0.5
        expected.add((row, best, min((j for j in range(16) if j != best), key=lambda j: abs(own[j] - low))))
    assert as_set(found(rewards, "best_vs_low")) == expected
