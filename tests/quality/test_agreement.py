"""Rank correlations a prompt, by hand; a shuffled reward agrees with nothing; best of n on the stored judgments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.quality.agreement import agreements, rank_correlations
from tasks.quality.answers import SampledAnswers, read_samples
from tasks.quality.best_of import RANDOM, best_of_curves
from tasks.quality.settings import SampleSet


def test_by_hand():
    """Ranks 1, 2, 3 and 1, 3, 2: rho is 1 - 6 * 2 / (3 * 8), and two of three pairs agree."""
    found = rank_correlations(np.array([0.1, 0.2, 0.3]), np.array([5.0, 7.0, 6.0]))
    assert found == pytest.approx((0.5, 1 / 3))


def test_ties_by_hand():
    """Ranks 1.5, 1.5, 3 and 1, 2, 3: of three pairs one is tied, two agree: 2 / sqrt(2 * 3)."""
    found = rank_correlations(np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0]))
    assert found == pytest.approx((1.5 / np.sqrt(1.5 * 2), 2 / np.sqrt(6)))


def test_a_constant_ranks_nothing_and_what_has_no_reward_is_left_out():
    assert rank_correlations(np.ones(3), np.arange(3.0)) is None
    assert rank_correlations(np.array([1.0, np.nan]), np.array([1.0, 2.0])) is None
    assert rank_correlations(np.array([1.0, np.nan, 3.0]), np.array([2.0, 9.0, 1.0])) == pytest.approx((-1, -1))


@given(st.lists(st.integers(-9, 9), min_size=3, max_size=8), st.randoms())
def test_only_the_order_counts(values, random):
    one = np.array(values, np.float64)
    other = np.array(random.sample(values, len(values)), np.float64)
    found = rank_correlations(one, other)
    assert rank_correlations(np.exp(one), 3 * other - 1) == (None if found is None else pytest.approx(found))


def test_rewards_agree_with_themselves_and_not_with_what_is_shuffled():
    random = np.random.default_rng(0)
    gold = {f"{n:03}": random.normal(size=8) for n in range(200)}
    opposite = {id_: -values for id_, values in gold.items()}
    found = list(agreements("set", {"gold": gold, "opposite": opposite}, seed=0))
    assert [(each.reward, each.other, each.prompts) for each in found] == [
        ("gold", "opposite", 200),
        ("gold", "gold, shuffled", 200),
    ]
    assert found[0].spearman == pytest.approx((-1, -1, -1))
    shuffled = found[1].spearman
    assert shuffled.mean is not None
    assert abs(shuffled.mean) < 3 / np.sqrt(200 * 7), "a shuffled ranking of k has variance 1 / (k - 1)"


# Best of n.


@pytest.fixture(scope="module")
def tulu(test_data) -> SampledAnswers:
    return read_samples(SampleSet(source=str(test_data / "best_of_n/tulu2_13b_200x11.parquet"), gold_column="reward"))


def test_stored_judgments(tulu):
    """The mean of all 2,200, the mean of each prompt's best and, in between, what a subset counted one by one gives."""
    gold = {id_: np.array(values) for id_, values in tulu.gold.items()}
    length = {id_: np.array([float(len(text)) for text in texts]) for id_, texts in tulu.completions.items()}
    random, best, longest = best_of_curves("tulu", "gold", {"gold": gold, "length": length}, seed=0)
    assert (random.reward, random.prompts, random.n) == (RANDOM, 200, list(range(1, 12)))
    assert random.gold == pytest.approx([0.28424382007381815] * 11)
    assert (random.low, random.high) == (pytest.approx([0] * 11, abs=1e-12),) * 2
    assert best.gold[-1] == pytest.approx(0.5349985999954999)
    assert longest.gold[0] == pytest.approx(random.gold[0])
    two = [np.maximum(own[:, None], own[None, :])[~np.eye(11, dtype=bool)].mean() for own in gold.values()]
    assert best.gold[1] == pytest.approx(np.mean(two))
    assert longest.low[-1] < longest.gain[-1] < longest.high[-1]
    assert np.all(np.array(best.gold) >= np.array(longest.gold) - 1e-12)


def test_published_win_rates_hold_the_stored_judgments(tulu):
    """RewardBench's (its repository, bon_eval) of these completions on all 805 prompts; here are 200 of them."""
    published = [27.314, 28.677, 30.549, 31.251, 30.913, 32.568, 33.768, 33.007, 34.339, 34.443, 35.455]
    rows = np.array(list(tulu.gold.values()))
    error = 100 * rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
    assert np.all(np.abs(100 * rows.mean(axis=0) - published) < 2 * error)


def test_n_goes_as_far_as_every_prompt_does():
    gold = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([0.0, 4.0]), "c": np.array([9.0])}
    _, best = best_of_curves("set", "gold", {"gold": gold}, seed=0)
    assert (best.prompts, best.n) == (2, [1, 2])
    assert best.gold == pytest.approx([2.0, (8 / 3 + 4) / 2])
    assert best_of_curves("set", "gold", {"gold": {"c": gold["c"]}}, seed=0) == []
    unknown = {"a": np.array([1.0, np.nan]), "b": gold["b"]}
    assert best_of_curves("set", "gold", {"gold": unknown}, seed=0)[1].prompts == 1
