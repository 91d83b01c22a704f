"""Several rewards as one: by hand, and by law."""

import numpy as np
import pytest
from candidates import NAN, as_set, candidates
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from tasks.config.errors import ConfigurationError
from tasks.selection.combination import Columns, combine, fit, ranks, within_prompt
from tasks.selection.strategies import PairsConfig, select
from tasks.selection.terms import Combination
from tasks.selection.threshold import select_pairs

A, B = np.array([[1.0, 2.0, 6.0], [0.0, 4.0, NAN]]), np.array([[10.0, 0.0, 5.0], [5.0, 5.0, 5.0]])
LENGTHS = np.array([[10, 20, 30], [10, 20, 30]])
whole = arrays(np.float64, (4, 3), elements=st.integers(-9, 9))
values = arrays(np.float64, (4, 3), elements=st.floats(-50, 50, width=32))


def made(combine_by="sum", columns=None, lengths=LENGTHS, **rewards):
    columns = Columns(columns or {"a": A, "b": B}, lengths)
    combination = Combination(rewards=rewards, combine=combine_by)
    flat = Columns({name: own.ravel() for name, own in columns.rewards.items()}, columns.lengths.ravel())
    return combine(combination, columns, fit(combination, flat))


def test_a_weighted_sum_a_minimum_and_a_product():
    found = made(a={"weight": 2}, b={"weight": 0.5})
    np.testing.assert_allclose(found.reward, [[7, 4, 14.5], [2.5, 10.5, NAN]])
    np.testing.assert_allclose(made("min", a={}, b={}).reward, [[1, 0, 5], [0, 4, NAN]])
    np.testing.assert_allclose(made("product", a={"weight": 2}, b={}).reward, [[10, 0, 180], [0, 80, NAN]])


def test_scales():
    known = A[~np.isnan(A)]  # 1, 2, 6, 0, 4: mean 2.6, variance 57 / 5 - 2.6^2 = 4.64
    np.testing.assert_allclose(made(a={"scale": "standardised"}).reward, (A - 2.6) / np.sqrt(4.64))
    assert known.mean() == 2.6
    spread = np.sqrt(14 / 3)  # of -2, -1, 3
    expected = [[-2 / spread, -1 / spread, 3 / spread], [-1, 1, NAN]]
    np.testing.assert_allclose(made(a={"scale": "within_prompt"}).reward, expected)
    np.testing.assert_allclose(made(a={"scale": "rank"}).reward, [[0, 0.5, 1], [0, 1, NAN]])


def test_equal_rewards_and_a_single_one_have_a_place_within_a_prompt():
    np.testing.assert_allclose(within_prompt(np.array([[5.0, 5.0, 5.0], [3.0, NAN, NAN]])), [[0, 0, 0], [0, NAN, NAN]])
    np.testing.assert_allclose(ranks(np.array([[5.0, 5.0, 5.0], [3.0, NAN, NAN]])), [[0.5] * 3, [0.5, NAN, NAN]])
    np.testing.assert_allclose(ranks(np.array([[1.0, 7.0, 1.0]])), [[0.25, 1, 0.25]])


def test_a_clip_is_in_units_of_the_scale():
    np.testing.assert_allclose(made(a={"clip": (1, 4)}).reward, [[1, 2, 4], [1, 4, NAN]])
    np.testing.assert_allclose(made(a={"scale": "rank", "clip": (0, 0.5)}).reward, [[0, 0.5, 0.5], [0, 0.5, NAN]])


def test_a_gate_forbids_to_choose_and_leaves_the_reward():
    found = made(a={}, b={"weight": 0, "at_least": 5})
    np.testing.assert_array_equal(found.passes, [[True, False, True], [True] * 3])
    np.testing.assert_allclose(found.reward, A)
    assert list(found.terms) == ["a"]
    assert list(found.raw) == ["a", "b"]


def test_an_ensemble_is_its_mean_less_a_multiple_of_its_spread():
    columns = {"a.1": np.array([[1.0, 4.0]]), "a.2": np.array([[3.0, NAN]]), "ab": np.array([[9.0, 9.0]])}
    lengths = np.ones((1, 2), int)
    np.testing.assert_allclose(made(columns=columns, lengths=lengths, a={}).reward, [[2, NAN]])
    np.testing.assert_allclose(made(columns=columns, lengths=lengths, a={"uncertainty": 0.5}).reward, [[1.5, NAN]])


def test_a_monotone_residual_is_what_isotonic_regression_leaves():
    lengths, rewards = np.array([[1, 2, 3, 4]]), np.array([[1.0, 3.0, 2.0, 4.0]])
    found = made(columns={"a": rewards}, lengths=lengths, a={"length": "monotone"})
    np.testing.assert_allclose(found.reward, [[0, 0.5, -0.5, 0]])  # 3 and 2 are pooled to 2.5


def test_a_piecewise_residual_takes_off_what_bends_with_the_length():
    lengths = np.arange(1, 101).reshape(20, 5)
    bent = np.where(lengths < 50.5, lengths / 10, 10.1 - lengths / 10)
    noise = np.random.default_rng(0).normal(size=lengths.shape)
    found = made(columns={"a": bent + noise}, lengths=lengths, a={"length": "piecewise"}).reward
    assert abs(np.corrcoef(found.ravel(), bent.ravel())[0, 1]) < 0.05
    assert np.corrcoef(found.ravel(), noise.ravel())[0, 1] > 0.9


@given(values, values)
def test_a_monotone_fit_is_best_among_what_never_falls(rewards, other):
    lengths = np.arange(12).reshape(4, 3)
    left = made(columns={"a": rewards}, lengths=lengths, a={"length": "monotone"}).reward
    rising = np.sort(other.ravel()).reshape(4, 3)
    assert (left**2).sum() <= ((rewards - rising) ** 2).sum() + 1e-6
    assert (np.diff((rewards - left).ravel()) >= -1e-9).all()


@given(whole, st.integers(1, 4), st.integers(-20, 20))
def test_units_do_not_matter_once_scaled(rewards, factor, shift):
    for scale in ("standardised", "within_prompt", "rank") if np.ptp(rewards) else ("within_prompt", "rank"):
        one = made(columns={"a": rewards}, lengths=np.ones((4, 3)), a={"scale": scale}).reward
        other = made(columns={"a": factor * rewards + shift}, lengths=np.ones((4, 3)), a={"scale": scale}).reward
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ({"a": {"weight": 1}, "b": {"weight": -1}}, "sum to zero"),
        ({"a": {"weight": 0}}, "counts for nothing"),
        ({"a": {"weight": 0, "at_least": 1}}, "sum to zero"),
        ({"a": {"clip": (1, 1)}}, "lower bound and a higher one"),
        ({"a": {"clip": (1,)}}, "clip"),
        ({}, "at least 1 item"),
    ],
)
def test_what_counts_for_nothing_is_refused(rewards, message):
    with pytest.raises((ValidationError, ValueError), match=message):
        Combination(rewards=rewards)


def test_what_cannot_be_fitted_is_refused_by_name():
    one = {"a": np.array([[3.0]])}
    with pytest.raises(ValueError, match=r"rewards.a.scale = standardised needs two different rewards, and 1 com"):
        made(columns=one, lengths=np.array([[5]]), a={"scale": "standardised"})
    with pytest.raises(ValueError, match=r"pairs.rewards.a.length = monotone needs completions of different lengths"):
        made(columns={"a": A}, lengths=np.full((2, 3), 7), a={"length": "monotone"})
    with pytest.raises(ValueError, match=r"product needs rewards of 0 or more, and a is -1 somewhere"):
        made("product", columns={"a": A - 1, "b": B}, a={}, b={})
    with pytest.raises(ValueError, match=r"divides by b, since pairs.rewards.b.weight = -0.5, and b is 0 somewhere"):
        made("product", a={}, b={"weight": -0.5})


def test_a_negative_exponent_divides():
    columns = {"a": np.array([[8.0, 3.0]]), "b": np.array([[4.0, 9.0]])}
    found = made("product", columns=columns, lengths=np.ones((1, 2), int), a={"weight": 2}, b={"weight": -0.5})
    np.testing.assert_allclose(found.reward, [[32, 3]])  # 64 / 2, 9 / 3


def test_nothing_is_fitted_for_a_gate_alone():
    constant = {"a": A, "b": np.ones((2, 3))}
    found = made(columns=constant, a={}, b={"weight": 0, "at_least": 1, "scale": "standardised"})
    np.testing.assert_allclose(found.reward, A)


def test_pareto_pairs_are_better_by_each_reward():
    good, kind = np.array([[3.0, 2.0, 1.0, 0.0]]), np.array([[0.0, 2.0, 1.0, 1.0]])
    both = candidates(good + kind)._replace(terms={"good": good, "kind": kind})
    config = PairsConfig(strategy="pareto", tau=1, eta=0.5, truncated="keep")
    # 0 is best by one and worst by the other; 2 and 3 tie by `kind`
    assert as_set(select(both, config)) == {(0, 1, 2), (0, 1, 3)}


@given(values, values)
def test_pareto_is_the_threshold_rule_by_each(one, other):
    both = candidates(one + other)._replace(terms={"one": one, "other": other})
    found = as_set(select(both, PairsConfig(strategy="pareto", tau=1, eta=0.7, truncated="keep")))
    assert found == as_set(select_pairs(one, 1, 0.7)) & as_set(select_pairs(other, 1, 0.7))


def test_pareto_needs_several_rewards():
    with pytest.raises(ValueError, match="needs several rewards with a weight"):
        select(candidates([[1.0, 2.0]])._replace(terms={}), PairsConfig(strategy="pareto"))


def test_rounding_is_not_spread_out():
    lengths = np.array([[10, 20, 30], [10, 20, 30]])
    rows = np.float64(np.float32(0.1) * np.float32(lengths))  # all of it is length, but for the last bits
    with pytest.raises(ConfigurationError, match="scale = standardised needs two different rewards"):
        made(a={"length": "piecewise", "scale": "standardised"}, columns={"a": rows})
    with pytest.raises(ConfigurationError, match="scale = standardised needs two different rewards"):
        made(a={"scale": "standardised"}, columns={"a": np.full((2, 3), 0.1)})


def test_a_combination_that_is_not_finite_is_refused():
    with pytest.raises(ConfigurationError, match="which is not finite in float32"):
        made("product", a={"weight": 60}, b={})
