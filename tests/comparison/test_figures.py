"""The figures of a comparison: sweeps of arms that have a result."""

import pytest
from results import made

from tasks.comparison.figures import ONE_PLACE, swept
from tasks.comparison.page import comparison_page
from tasks.comparison.sweeps import GAP_AXIS, Point, Sweep

ARMS = {"a": (1.0, 4.0, 0.0), "b": (2.0, 4.0, 0.0), "c": (3.0, 4.0, 0.0)}
SWEEP = Sweep("dpo.beta", {"x": [Point(0.1, "a"), Point(0.2, "b"), Point(0.4, "lost")], "y": [Point(0.1, "c")]})


def test_a_sweep_shows_reward_at_the_common_kl_and_win_rate_where_arms_have_a_result():
    reward, wins = swept(made(ARMS), SWEEP)
    assert reward.caption == "Reward at KL 4, mean and 95% over seeds"
    assert reward.alt.endswith("x: 2 [2, 2] at 0.1, 3 [3, 3] at 0.2"), "without the arm that is lost, and a lone point"
    assert wins.caption == "Win rate over sft, mean and 95% over prompts and seeds"


def test_arms_of_one_gap_are_said_to_stand_at_one_place():
    gap = Sweep(GAP_AXIS, {"x": [Point(1.386, "a"), Point(1.388, "b")]})
    assert all(plot.caption.endswith(ONE_PLACE) for plot in swept(made(ARMS), gap))


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_page_has_a_section_for_each_sweep_that_has_something_to_show(seeds):
    lost = Sweep("dpo.epochs", {"x": [Point(1, "a"), Point(2, "lost")]})
    comparison = made(ARMS, seeds)._replace(sweeps=[SWEEP, lost])
    page = comparison_page("t", "store", {"": (comparison, [])}).decode()
    assert "<h2>Sweep of dpo.beta" in page
    assert "Sweep of dpo.epochs" not in page
    assert page.count("<svg") == 3
