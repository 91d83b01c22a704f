"""How the trainings of an arm went, by hand: metrics along them, and the gaps of their pairs."""

import numpy as np
import pytest
from results import made, result

from tasks.comparison.page import comparison_page
from tasks.comparison.trainings import ACCURACY, along_training, gap_densities


def logged(seed, *points):
    return result("a", seed, 1.0)._replace(log={ACCURACY: points})


def test_trainings_of_different_lengths_are_put_on_one_axis():
    told = along_training([logged(0, (10, 0.5), (20, 0.9)), logged(1, (10, 0.6), (40, 0.9))], ACCURACY)
    assert (told.at[0], told.at[-1]) == (0.5, 1)  # from where both have a value
    assert told.mean[-1] == pytest.approx(0.9)
    assert told.mean[0] == pytest.approx((0.5 + 0.7) / 2)  # the second one's step 20, a third of the way from .6 to .9
    assert told.low[-1] == pytest.approx(told.high[-1])


@pytest.mark.parametrize("points", [(), ((10, 0.5),), ((10, 0.5), (20, np.nan))])
def test_a_seed_without_a_curve_leaves_none(points):
    assert along_training([logged(0, (10, 0.5), (20, 0.9)), logged(1, *points)], ACCURACY) is None


def with_gaps(arm, seed, *gaps):
    return result(arm, seed, 1.0)._replace(gaps=np.array(gaps, np.float64))


def test_a_density_integrates_to_one_and_bins_are_shared():
    arms = {"a": [with_gaps("a", 0, 2, 2, 4, 4)], "b": [with_gaps("b", 0, 0, 1), with_gaps("b", 1, 1, 1)]}
    found = gap_densities(arms)
    width = found["a"].at[1] - found["a"].at[0]
    assert (found["a"].at == found["b"].at).all()
    assert width == pytest.approx(4 / 40)
    assert found["a"].mean.sum() * width == pytest.approx(1)
    assert found["b"].mean[0] == pytest.approx(0.25 / width)  # half of one seed's, none of the other's


def test_arms_of_the_same_pairs_are_one_line_and_arms_without_pairs_none():
    same = [with_gaps("x", 0, 2, 3), with_gaps("x", 1, 1, 2)]
    found = gap_densities({"a": same, "beta": same, "c": [with_gaps("c", 0, 2, 3)], "rl": [result("rl", 0, 1.0)]})
    assert list(found) == ["a and 1 more of the same pairs", "c"]
    assert gap_densities({"rl": [result("rl", 0, 1.0)]}) == {}


def test_gaps_that_are_all_equal_have_a_density():
    (found,) = gap_densities({"a": [with_gaps("a", 0, 1, 1)]}).values()
    assert found.mean.max() == pytest.approx(40)


def test_the_page_shows_trainings_only_where_there_are_such():
    comparison = made({"a": (1.0,), "b": (2.0,)})
    assert "How did the trainings go?" not in comparison_page("t", "store", {"": (comparison, [])}).decode()
    own = [logged(seed, (10, 0.5), (20, 0.9))._replace(gaps=np.array([1.0, 2.0])) for seed in range(2)]
    page = comparison_page("t", "store", {"": (comparison._replace(results={"a": own}), [])}).decode()
    assert "How did the trainings go?" in page
    assert page.count("<svg") == 3, "the frontier, accuracies, and gaps"
