"""Accuracy by category, by hand; RewardBench's sections."""

import numpy as np
import pytest

from tasks.quality.accuracy import accuracy_of, calibration_of, gaps_by_category
from tasks.quality.answers import ALL, Pair, PairedAnswers
from tasks.quality.sections import OVERALL, SECTIONS, section_scores
from tasks.rewards.calibration import wilson_interval

PLACE = ("set", "category", "reward")


def test_a_tie_counts_half_and_is_counted():
    found = accuracy_of(PLACE, np.array([1.0, 0.0, -2.0, 3.0, np.nan]))
    assert (found.pairs, found.ties, found.unscored, found.accuracy) == (4, 1, 1, 2.5 / 4)
    assert (found.low, found.high) == wilson_interval(2.5 / 4, 4)


def test_without_a_scored_pair_there_is_no_accuracy():
    found = accuracy_of(PLACE, np.array([np.nan]))
    assert found == (*PLACE, 0, None, None, None, 0, 1)
    assert calibration_of(("set", "reward"), np.array([np.nan]), 1.0) is None


def test_categories_have_their_own_gaps_and_the_set_all_of_them():
    pairs = [Pair("p", 0, 1, "a"), Pair("p", 2, 0, "b"), Pair("q", 1, 0, "a")]
    rewards = {("p", 0): 1.0, ("p", 1): 0.5, ("p", 2): 3.0, ("q", 0): 1.0, ("q", 1): float("nan")}
    found = gaps_by_category(PairedAnswers("file", pairs=pairs), rewards)
    assert list(found) == [ALL, "a", "b"]
    np.testing.assert_array_equal(found[ALL], [0.5, 2.0, np.nan])
    np.testing.assert_array_equal(found["a"], [0.5, np.nan])
    np.testing.assert_array_equal(found["b"], [2.0])


def test_a_reward_that_is_right_as_often_as_it_says_is_calibrated():
    gaps = np.repeat([np.log(3), -np.log(3)], [75, 25])  # sigma(log 3) is 0.75, and 75 of 100 are right
    found = calibration_of(("set", "reward"), gaps, 1.0)
    assert found is not None
    assert found.ece == pytest.approx(0, abs=1e-12)
    assert found.calibrating_tau == pytest.approx(1)
    twice = calibration_of(("set", "reward"), gaps, 2.0)
    assert twice is not None
    assert twice.ece == pytest.approx(0.75 - np.sqrt(3) / (1 + np.sqrt(3)))


# RewardBench.


def test_code_and_math_count_the_same():
    right = {
        "math-prm": 1.0,
        **dict.fromkeys(("hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"), 0.0),
    }
    (found,) = section_scores(right)
    assert found == ("Reasoning", 0.5, 7, 7)


def test_subsets_count_by_their_pairs():
    (found,) = section_scores({"mt-bench-hard": 1.0, "llmbar-adver-GPTOut": 0.0})
    assert found == ("Chat Hard", 37 / (37 + 47), 2, 6)


def test_an_unknown_subset_is_in_no_section():
    assert section_scores({"mine": 1.0}) == []


def test_there_are_as_many_pairs_as_in_the_benchmark():
    counts = {subset: count for section in SECTIONS.values() for subset, count in section.items()}
    assert sum(counts.values()) - counts["math-prm"] + 447 == 2985


@pytest.mark.parametrize(
    ("sections", "published"),
    [
        ((96.4, 67.1, 88.2, 91.6), 85.8),  # GRM-llama3.2-3B-sftreg
        ((96.9, 57.2, 87.7, 88.5), 82.6),  # Starling-RM-34B
        ((99.4, 65.1, 86.8, 86.4), 84.4),  # FsfairX-LLaMA3-RM-v0.1
        ((97.2, 59.6, 86.9, 80.3), 81.0),  # GRM-Gemma2-2B-sftreg
    ],
)
def test_published_scores_are_the_mean_of_the_published_sections(sections, published):
    by_subset = {subset: score for own, score in zip(SECTIONS.values(), sections, strict=True) for subset in own}
    *found, overall = section_scores(by_subset)
    assert [each.score for each in found] == pytest.approx(sections)
    assert (overall.section, overall.subsets, overall.of) == (OVERALL, 23, 23)
    assert overall.score == pytest.approx(published, abs=0.051)
