"""The form of completions, and scripts: each by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.rewards.programs.blocks import last_block
from tasks.rewards.programs.form import distinct_ngrams, length, matches, valid_json
from tasks.rewards.programs.scripts import letters_of

THINKS = r"(?s)\A\s*<think>(?:(?!</?think>).)*</think>\s*<answer>.*</answer>\s*\Z"


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>2 + 3\nis 5</think>\n<answer>5</answer>\n", 1),
        ("<think></think><answer>5</answer>", 1),
        ("<answer>5</answer>", 0),
        ("<think>a</think><answer>5</answer> Bye!", 0),
        ("<think>a<think>b</think><answer>5</answer>", 0),
        ("", 0),
    ],
)
def test_thought_then_answer(text, reward):
    assert matches([], text, THINKS) == reward
    assert matches([], text, THINKS, wanted=False) == 1 - reward


def test_an_empty_match_is_one():
    assert matches([], "", "a*") == 1


def test_a_search_ends_in_time(monkeypatch):
    monkeypatch.setattr("tasks.rewards.programs.patterns.SECONDS", 0.2)
    with pytest.raises(ValueError, match=r"takes more than 0.2 s on 41 characters: write one without nested"):
        matches([], "a" * 40 + "!", r"(?:a|a)+b|(?:(a+)+)\1b")


def test_lengths_by_hand():
    text = " one  two\nthree "
    assert [length([], text, bounds) for bounds in ([3, 3], [None, 2], [4, None], [0, 9])] == [1, 0, 0, 1]
    assert length([], text, [13, 14], "characters") == 1  # one, two spaces, two, a line's end, three: 3 + 2 + 3 + 1 + 5
    assert length([], text, [2, 2], "lines") == 1
    assert [length([], "w " * count, [2, 4], slack=4) for count in range(10)] == [
        *(0.5, 0.75, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0)
    ]


@given(count=st.integers(0, 60), least=st.integers(0, 20), width=st.integers(0, 20), slack=st.integers(0, 20))
def test_a_length_is_best_within_its_bounds(count, least, width, slack):
    reward = length([], "w " * count, [least, least + width], slack=slack)
    assert (reward == 1) == (least <= count <= least + width)
    assert 0 <= reward <= 1


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ('{"a": 1}', 1),
        (' [1, "b", null]\n', 1),
        ("3", 1),
        ("{'a': 1}", 0),
        ('{"a": 1', 0),
        ('{"a": NaN}', 0),
        ("[Infinity]", 0),
        ("", 0),
        ("[" * 100_000, 0),
        ('Here: {"a": 1}', 0),
    ],
)
def test_json(text, reward):
    assert valid_json([], text) == reward


def test_keys_and_fences_of_json():
    assert valid_json([], '{"a": 1, "b": 2}', ["a", "b"]) == 1
    assert valid_json([], '{"a": 1}', ["a", "b"]) == 0
    assert valid_json([], '["a", "b"]', ["a", "b"]) == 0
    fenced = 'Here:\n```json\n{"a": 1}\n```\n```python\nx\n```\nDone.'
    assert valid_json([], fenced, fenced=True) == 1
    assert valid_json([], fenced) == 0
    assert valid_json([], '{"a": 1}', fenced=True) == 0


def test_blocks():
    assert last_block("```\na\n```\nand\n```python\nb\n```", ["python"]) == "b\n"
    assert last_block("```python\nb\n```\n```bash\nls\n```", ["python"]) == "b\n"
    assert last_block("1. so:\n   ```py\n   def f():\n       pass\n   ```", ["py"]) == "def f():\n    pass\n"
    assert last_block("```python\nnever closed", ["python"]) is None
    assert last_block("plain", ["python"]) is None


def test_repetition_by_hand():
    assert distinct_ngrams([], "a b a b a b", n=2) == pytest.approx(2 / 5)  # ab ba ab ba ab
    assert distinct_ngrams([], "A a", n=1) == 0.5
    assert distinct_ngrams([], "one two three") == 1
    assert distinct_ngrams([], "la " * 103) == 0.01


def test_scripts_by_hand():
    assert letters_of([], "Привет, world!", ["cyrillic"]) == pytest.approx(6 / 11)
    assert letters_of([], "日本語です 123", ["cjk", "hiragana"]) == 1
    assert letters_of([], "Ελλάδα", ["latin"]) == 0
    assert letters_of([], "12 + 3 = ?", ["latin"]) == 0
