"""How much of what is said was said before: over texts, and within one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.comparison import distinct_2, repetition


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a b a b"], 2 / 3),  # ab ba ab
        (["a b", "a b"], 1 / 2),
        (["a b", "b c"], 1),
        (["a", "b"], 0),  # no pair goes from one text to the next
        ([], 0),
        ([""], 0),
        (["a  b\nc"], 1),
        (["a a a a a"], 1 / 4),
    ],
)
def test_distinct_2_by_hand(texts, expected):
    assert distinct_2(texts) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("two words", 0),  # no 3-gram
        ("a b c d e", 0),
        ("a b c a b c", 1 / 4),  # abc bca cab abc
        ("no no no no no", 2 / 3),
    ],
)
def test_repetition_by_hand(text, expected):
    assert repetition(text) == pytest.approx(expected)


@given(st.lists(st.text("ab ", max_size=12), max_size=5))
def test_distinct_2_is_a_share_and_falls_when_texts_are_repeated(texts):
    share = distinct_2(texts)
    assert 0 <= share <= 1
    assert distinct_2(texts * 2) == pytest.approx(share / 2)
