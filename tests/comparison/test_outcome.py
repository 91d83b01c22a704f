"""What comes out of a comparison, from results that are made up."""

import pytest
from results import made, result

from tasks.comparison.arms import ComparisonConfig
from tasks.comparison.outcome import arms_table, gather, verdicts, verdicts_matrix
from tasks.comparison.page import comparison_page


def test_a_better_arm_is_told_apart_and_its_twin_is_not():
    found = {(each.arm, each.other): each for each in verdicts(made({"good": (2.0,), "twin!": (2.0,), "bad": (0.5,)}))}
    assert found["good", "bad"].sentence == "good is better than bad at equal KL."
    assert found["good", "twin!"].sentence == "good and twin! are not told apart at equal KL."
    assert found["good", "bad"].wins.mean > 0.2
    assert found["good", "bad"].p < 0.05 < found["good", "twin!"].p


def test_the_same_reward_at_twice_the_kl_is_worse_at_equal_kl():
    comparison = made({"near": (1.0, 2.0, 0.02), "far!": (1.0, 4.0, 0.02)})
    assert comparison.at_kl == pytest.approx(2.0)
    (found,) = verdicts(comparison)
    assert found.at_kl.mean == pytest.approx(0.5, abs=0.1)
    assert found.sentence == "near is better than far! at equal KL."


def test_a_control_that_goes_nowhere_does_not_decide_where_the_others_are_compared():
    arms = {"a": (1.0, 4.0), "control": (0.0, 0.1)}
    assert made(arms).at_kl == pytest.approx(0.1)
    comparison = made(arms, controls=("control",))
    assert comparison.at_kl == pytest.approx(4.0)
    (found,) = verdicts(comparison)
    assert found.at_kl is None, "the control does not reach it"
    assert found.sentence == "a is better than control in wins."


def test_one_seed_tells_nothing_apart_at_equal_kl():
    (found,) = verdicts(made({"good": (2.0,), "bad": (0.0,)}, seeds=1))
    assert found.sentence == "good and bad are not told apart at equal KL."
    assert "(one seed)" in str(arms_table(made({"good": (2.0,), "bad": (0.0,)}, seeds=1)).rows)


def test_arms_without_a_seed_in_common_are_not_compared():
    asked = ComparisonConfig(base="x", arms={"a": {}, "b": {}}, seeds=(0, 1))
    comparison = gather([result("a", 0, 1.0), result("b", 1, 2.0)], {"a": "seed 1: no pair"}, asked)
    assert verdicts(comparison) == []
    assert comparison_page("t", "store", {"": (comparison, [])})


def test_the_page_has_the_curves_and_every_text_is_escaped():
    comparison = made({"<script>alert(1)</script>": (2.0,), "other": (0.5,)})
    comparison.failed["empty"] = "no pair was selected"
    page = comparison_page("t", "store", {"": (comparison, verdicts(comparison))}).decode()
    assert "<script" not in page
    assert page.count("<svg") == 3
    assert "empty has no result: no pair was selected" in page


def test_the_reference_comes_first_and_trains_nothing():
    rows = arms_table(made({"a": (1.0,), "b": (2.0,)})).rows
    assert [row[0] for row in rows] == ["sft", "a", "b"]
    assert rows[0][1:4] == ("5", "1.000 [1.000, 1.000]", "0.00")
    assert {*rows[0][4:]} == {"-"}


def test_arms_that_begin_with_different_policies_have_no_reference_in_common():
    asked = ComparisonConfig(base="x", arms={"a": {}, "b": {}}, seeds=(0,))
    results = [result("a", 0, 1.0), result("b", 0, 1.0)._replace(reference=1.1)]
    assert [row[0] for row in arms_table(gather(results, {}, asked)).rows] == ["a", "b"]


def test_the_matrix_says_of_both_sides_what_a_verdict_says():
    comparison = made({"good": (2.0,), "twin!": (2.0,), "bad": (0.5,)})
    table = verdicts_matrix(comparison, verdicts(comparison))
    assert table.head == ("", "good", "twin!", "bad")
    assert table.rows == [
        ("good", "", "=", "better"),
        ("twin!", "=", "", "better"),
        ("bad", "worse", "worse", ""),
    ]
