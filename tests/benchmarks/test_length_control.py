"""Length control: numbers by hand, laws, and AlpacaEval's published annotations."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.benchmarks.figures import Resampling
from tasks.benchmarks.length_control import features, fit, length_controlled
from tasks.benchmarks.win_rate import win_figures

STRONG = 1e4
"""Of the likelihood: the penalty is nothing beside it."""


def alternating(size: int, length: float) -> np.ndarray:
    return np.where(np.arange(size) % 2, length, -length)


def test_features_by_hand():
    # std of -3, 0, 3 with n - 1 is 3
    assert features(np.array([-3.0, 0.0, 3.0])).tolist() == [[1, np.tanh(-1)], [1, 0], [1, np.tanh(1)]]
    assert features(np.array([5.0, 5.0])).tolist() == [[1, 0], [1, 0]]


def test_without_a_length_effect_it_is_the_win_rate():
    delta = alternating(400, 100)
    wins = np.tile([1, 1, 1, 1, 1, 1, 0, 0], 50).astype(float)  # 3 of 4, for longer and shorter answers alike
    theta, phi = fit(features(delta), wins, STRONG)
    assert theta == pytest.approx(np.log(3), abs=1e-3)
    assert phi == pytest.approx(0, abs=1e-3)
    assert length_controlled(wins, delta).win_rate == pytest.approx(0.75, abs=0.01)


def test_a_pure_length_effect_leaves_half():
    # longer answers, three quarters of all, win 4 of 5; shorter ones lose 4 of 5: raw 0.65, and symmetric in length
    delta = np.concatenate([np.full(300, -100.0), np.full(100, 100.0)])
    wins = np.concatenate([np.tile([1, 1, 1, 1, 0], 60), np.tile([0, 0, 0, 0, 1], 20)]).astype(float)
    order = np.random.default_rng(0).permutation(400)
    found = length_controlled(wins[order], delta[order])
    assert wins.mean() == 0.65
    assert found.win_rate == pytest.approx(0.5, abs=0.01)
    theta, phi = fit(features(delta), wins, STRONG)
    assert theta == pytest.approx(0, abs=1e-3)
    assert phi * np.tanh(100 / delta.std(ddof=1)) == pytest.approx(-np.log(4), abs=1e-3)


def test_a_weak_likelihood_leaves_nothing():
    assert fit(features(alternating(8, 1)), np.ones(8), 0.2).tolist() == [
        0,
        0,
    ]  # 0.2 * 8 * 1/2 < 1, the penalty's slope


@given(rate=st.floats(0.1, 0.9), scale=st.floats(0.5, 1e4))
def test_the_unit_of_length_does_not_count(rate, scale):
    delta = np.arange(-20.0, 20.0)
    wins = np.clip(rate - delta / 100, 0, 1)
    one, other = (fit(features(delta * factor), wins, 10.0) for factor in (1, scale))
    assert one == pytest.approx(other, abs=1e-4)


@given(rate=st.floats(0.1, 0.9))
def test_the_reference_s_side_wins_the_rest(rate):
    delta = np.arange(-20.0, 20.0)
    wins = np.clip(rate - delta / 100, 0, 1)
    (theta, phi), (mirrored, again) = fit(features(delta), wins, 10.0), fit(features(-delta), 1 - wins, 10.0)
    assert (theta, phi) == pytest.approx((-mirrored, again), abs=1e-4)


@pytest.mark.parametrize(("answers", "means"), [(100, (69.65, 67.6)), (400, (69.84, 69.43))])
def test_the_penalty_pulls_to_a_half(answers, means):
    """Means of twenty policies that win 70% whatever the lengths; docs/benchmarks.md has the numbers."""
    found = []
    for random in map(np.random.default_rng, range(20)):
        wins = (random.random(answers) < 0.7).astype(float)
        found.append((100 * wins.mean(), 100 * length_controlled(wins, random.normal(size=answers)).win_rate))
    assert np.mean(found, axis=0) == pytest.approx(means, abs=0.05)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="4 comparisons must be at least 100"):
        length_controlled(np.ones(4), np.arange(4.0))


# What our regression gives on the published annotations, and what the authors' gives with difficulties and gamed rows.
OURS = {"NullModel": 84.688, "FuseChat-Llama-3.1-8B-Instruct": 65.063}
PUBLISHED = {"NullModel": 86.45780691307947, "FuseChat-Llama-3.1-8B-Instruct": 65.38623116037492}


@pytest.mark.parametrize("name", OURS)
def test_published_annotations(test_data, name):
    """The raw win rate is the published one; the length-controlled one comes near, for want of the third term."""
    told = json.loads((test_data / "alpaca_eval/annotations.json").read_text())[name]
    wins = np.array([row["preference"] for row in told["rows"]]) - 1
    delta = np.array([float(row["chars_reference"] - row["chars_model"]) for row in told["rows"]])
    raw, controlled, longer = win_figures(name, wins, delta, Resampling(100, 0))
    assert raw.value == pytest.approx(told["published"]["win_rate"], rel=1e-11)  # stored with ten decimals each
    assert raw.rows == controlled.rows == 805
    half = 1.96 * told["published"]["standard_error"]
    assert (raw.high - raw.low) / 2 == pytest.approx(half, rel=0.2)  # 100 resamples
    assert controlled.value == pytest.approx(OURS[name], abs=0.01)
    assert told["published"]["length_controlled_winrate"] == PUBLISHED[name]
    assert abs(controlled.value - PUBLISHED[name]) < 2
    assert controlled.low < controlled.value < controlled.high
    assert longer.value == -delta.mean()
