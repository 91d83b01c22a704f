"""Texts of a model: shown as text alone, compared word by word, watched for repeats."""

import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.browser.diff import MOST_WORDS, word_diff
from tasks.browser.repeats import repeated_share
from tasks.browser.safe_text import shown


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ('" onload="x', "&#34; onload=&#34;x"),
        ("a\x00b", 'a<span class="code">\\x00</span>b'),
        ("a\u202eb", 'a<span class="code">\\u202e</span>b'),
        ("\ud800", '<span class="code">\\ud800</span>'),
        ("\U000e0041", '<span class="code">\\U000e0041</span>'),
        ("two\nlines\tand", "two\nlines\tand"),
        ("naïve 漢字 مرحبا 👩\u200d🔬", "naïve 漢字 مرحبا 👩\u200d🔬"),
        (None, ""),
    ],
)
def test_a_text_is_shown_as_text(text, html):
    assert str(shown(text)) == html


def test_a_long_text_is_cut_with_a_note():
    assert str(shown("x" * 100_000, 10)) == f'{"x" * 10} <span class="cut">… 99,990 more characters</span>'


@given(st.text())
def test_no_text_opens_a_tag(text):
    assert str(shown(text)).replace('<span class="code">', "").replace("</span>", "").count("<") == 0


def test_words_in_both_texts_are_told():
    diff = word_diff("The bear is white.", "The bear was very white.")
    assert diff.left == [(True, "The bear"), (False, " is"), (True, " white.")]
    assert diff.right == [(True, "The bear"), (False, " was very"), (True, " white.")]
    assert diff.uncompared == 0


def test_equal_and_empty_texts():
    assert word_diff("same words", "same words").left == [(True, "same words")]
    assert word_diff("", "all new").right == [(False, "all new")]
    assert word_diff("", "") == ([], [], 0)


@given(st.text("ab \n", max_size=40), st.text("ab \n", max_size=40))
def test_a_diff_loses_no_character(left, right):
    diff = word_diff(left, right)
    for pieces, text in ((diff.left, left), (diff.right, right)):
        assert "".join(words for _, words in pieces) == text


@pytest.mark.parametrize("text", ["x" * 100_000, "a b " * 50_000, " ".join("ab"[i * i % 7 % 2] for i in range(9_999))])
def test_the_time_of_a_diff_is_bounded(text):
    start = time.perf_counter()
    diff = word_diff(text, text[::-1])
    assert time.perf_counter() - start < 2
    assert diff.uncompared == 2 * max(0, len(text.split()) - MOST_WORDS)


def test_repeated_3_grams():
    lists = pa.chunked_array([[[1, 2, 3], [1, 2, 3, 1, 2, 3]], [[7] * 12, [], [1, 2], list(range(50))]])
    assert np.allclose(repeated_share(lists.cast(pa.list_(pa.int32()))), [0, 0.25, 0.9, 0, 0, 0])


def test_a_completion_repeats_itself_and_not_its_neighbour():
    lists = pa.chunked_array([[[1, 2, 3, 4], [1, 2, 3, 4]]])
    assert repeated_share(lists.cast(pa.list_(pa.int32()))).tolist() == [0, 0]
    assert repeated_share(pa.chunked_array([], pa.list_(pa.int32()))).size == 0
