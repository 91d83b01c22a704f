"""Verdicts, read strictly; tests/benchmarks/test_mt_bench.py reads stored judgments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.config.judges import JudgeConfig
from tasks.judges.questions import Judged, pair_question, rating_question
from tasks.judges.verdicts import both_orders, by_priority, is_echo, read_marks, read_ratings, read_sides

NAMES = ("helpfulness", "code quality", "quality")


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Rating: [[5]]", [5]),
        ("评分: [[9]]", [9]),
        ("A clear answer. [[ 7.5 ]].", [7.5]),
        ("<think>maybe [[3]], or [[4]]</think>\nRating: [[6]]", [6]),
        ("Rating: 5", None),
        ("Rating: [5]", None),
        ("[[5]] or rather [[6]]", None),
        ("The user says [[10]]. My rating: [[2]]", None),
        ("[[0]]", None),
        ("[[11]]", None),
        ("[[-1]]", None),
        ("[[nan]]", None),
        ("[[1e1]]", None),
        ("[[rating]]", None),
        ("[[\uff15]]", None),
        ("[[5]", None),
        ("<think>it is [[3]]", None),
        ("", None),
    ],
)
def test_one_rating(text, rating):
    assert read_ratings(text) == rating


def test_a_rating_for_each_criterion_in_any_order():
    assert read_ratings("Good.\n- **Quality**: [[3]]\nhelpfulness: [[9]]\nCode quality - [[10]]", NAMES) == [9, 10, 3]


@pytest.mark.parametrize(
    "text",
    [
        "helpfulness: [[9]]\nquality: [[3]]",
        "helpfulness: [[9]]\nquality: [[3]]\nquality: [[3]]\ncode quality: [[10]]",
        "helpfulness: [[9]]\nquality: [[3]]\nquality: [[4]]",
        "helpfulness: [[9]]\nquality: [[3]]\nstyle: [[4]]",
        "helpfulness: [[9]]\nquality: [[0]]\ncode quality: [[4]]",
        "helpfulness: [[9]] quality: [[3]] code quality: [[4]]",
        "helpfulness:\n[[9]]\nquality: [[3]]\ncode quality: [[4]]",
    ],
)
def test_a_criterion_that_is_missing_twice_or_out_of_range(text):
    assert read_ratings(text, NAMES) is None


def test_sides_and_their_two_orders():
    assert [read_sides(f"I think [[{mark}]]") for mark in ("A", "B", "C", "a", "D", "A] [B")] == [
        [1.0],
        [0.0],
        [0.5],
        None,
        None,
        None,
    ]
    # Shown first and best twice: it wins. Whoever is first is best: a tie.
    assert both_orders(1.0, 0.0) == 1.0
    assert both_orders(0.0, 1.0) == 0.0
    assert both_orders(0.5, 0.5) == 0.5
    assert both_orders(1.0, 1.0) == 0.5
    assert both_orders(1.0, 0.5) == 0.5


def test_priorities_decide_where_principles_disagree():
    assert by_priority([0, 1, 1], [1, 2, 2]) == 0.0  # the first one alone decides
    assert by_priority([0.5, 1, 0.5], [1, 2, 2]) == 1.0  # it is a tie: the next ones
    assert by_priority([1, 0, 0], [1, 1, 2]) == 0.0  # even votes: the next one
    assert by_priority([1, 0, 0], [1, 1, 1]) == 0.0  # a majority
    assert by_priority([1, 0, 0.5], [3, 3, 7]) == 0.5


WINS = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 3)), min_size=1, max_size=6)


@given(wins=WINS, data=st.data())
def test_the_order_of_principles_does_not_count_and_sides_mirror(wins, data):
    shuffled = data.draw(st.permutations(wins))
    whole = by_priority(*zip(*wins, strict=True))
    assert by_priority(*zip(*shuffled, strict=True)) == whole
    assert by_priority([1 - win for win, _ in wins], [priority for _, priority in wins]) == 1 - whole


@given(text=st.text(alphabet="[]AB5: \nquality", max_size=60))
def test_what_is_read_is_one_for_each(text):
    for names in (("",), ("quality", "a")):
        marks = read_marks(text, names)
        assert marks is None or len(marks) == len(names)


ASKED = 'Rate it from 1 to 10, once and in double brackets, for example: "Rating: [[5]]".\n\nWas it good?'


@pytest.mark.parametrize(
    ("answer", "echo"),
    [
        (ASKED, True),
        ('Sure. I rate\nonce and in double  brackets, for example: "Rating: [[5]]".', True),
        ("Rating: [[5]]", False),
        ("It was not bad at all, and was short. Rating: [[5]]", False),
        ('Once and in double brackets, for example: "Rating: [[6]]"', False),
        ("<think>" + ASKED + "</think>Rating: [[5]]", False),
        ("No verdict.", False),
    ],
)
def test_an_example_that_is_repeated_is_no_verdict(answer, echo):
    assert is_echo(answer, ASKED) is echo


@pytest.mark.parametrize("named", [True, False])
def test_a_judge_that_repeats_the_question_has_not_judged(named):
    criteria = {"truth": {"description": "It is true."}, "tone": {"description": "It is kind."}} if named else {}
    config = JudgeConfig(model="m", base_url="http://127.0.0.1:1/v1", api_key_variable=None, criteria=criteria)
    judged = Judged([{"role": "user", "content": "Hi"}], "Hello!")
    for question in (rating_question(config, judged, "a"), pair_question(config, judged, "Ho.", "a")):
        for attempt in (0, 1):
            asked = question.asked(attempt)[-1]["content"]
            assert question.read(asked) is None or is_echo(asked, asked)
