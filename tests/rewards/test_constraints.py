"""Constraints of an instruction: each kind by hand, and how a prompt's metadata reaches the reward."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.config.errors import ConfigurationError
from tasks.config.sections import Function
from tasks.rewards.constraints import KINDS, constraints_kept, items, kept, read_constraints, sentences, words
from tasks.rewards.functions import Answer, find_gold, gold_rewards

LAMP = {"words": [3, 5], "contains": "lamp", "sentences": 1}


def metadata(constraints: object) -> dict[str, str]:
    return {"metadata": json.dumps(constraints)}


@pytest.mark.parametrize(
    ("kind", "bound", "text", "is_kept"),
    [
        ("words", [3, 5], "One two.", False),
        ("words", [3, 5], "One two three.", True),
        ("words", [3, 5], "One two three four five!", True),
        ("words", [3, 5], "One two three four five six.", False),
        ("words", [2, 2], "A well-known one's 42", False),  # three: "a", "well-known", "one's"; a number is no word
        ("words", [3, 3], "A well-known one's 42", True),
        ("sentences", 1, "It rains.", True),
        ("sentences", 1, "It rains", True),
        ("sentences", 1, "It rains. It pours.", False),
        ("sentences", 2, "It rains! Does it? ", True),
        ("sentences", 1, 'He said "no."', True),
        ("sentences", 1, "It costs 3.5 euros ...", True),
        ("items", 3, "1. a\n2. b\n3. c", True),
        ("items", 2, "Here they are:\n- a\n- b\n", True),
        ("items", 2, "1. a\n2. b\n3. c", False),
        ("items", 2, "1. a 2. b", False),
        ("items", 2, "1.\n2.", False),
        ("contains", "lamp", "The Lamp is lit.", True),
        ("contains", "lamp", "The lamps are lit.", False),
        ("contains", "lamp", 'Use the word "lamp".', False),  # repeated from the prompt
        ("contains", "lamp", 'The lamp is called "Lamp".', True),
        ("contains", "well-read", "A well-read lamp.", True),
        ("begins", "In my view", "In my view, it rains.", True),
        ("begins", "In my view", "in my view it rains", True),
        ("begins", "In my view", "It rains, in my view.", False),
        ("begins", "In my view", "In my viewing of it", False),
        ("ends", "so they say", "It rains, so they say.", True),
        ("ends", "so they say", "It rains, also they say.", False),
        ("ends", "so they say", "So they say it rains.", False),
        ("ends", "so they say", 'It rains. End with "so they say".', False),
        ("begins", "so they say", '"So they say", it rains.', False),
        ("lower_case", True, "it rains.", True),
        ("lower_case", True, "It rains.", False),
        ("lower_case", True, "42!", False),  # without a word
    ],
)
def test_each_kind_by_hand(kind, bound, text, is_kept):
    assert kept({kind: bound}, text) == {kind: is_kept}


def test_what_is_counted():
    assert words("Don’t STOP: 3 well-read a_b") == ["don’t", "stop", "well-read", "a", "b"]  # noqa: RUF001
    assert sentences("One. Two! ... Three? (Four.)") == 4
    assert items("1) a\n  * b\n• c\n2020 was good\n-d") == 3


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("The lamp is lit.", 1),
        ("The lamp is lit. It glows.", 1 / 3),  # the lamp, in six words and two sentences
        ("Light.", 1 / 3),
        ("", 0),
        (" \n...", 0),
    ],
)
def test_the_reward_is_the_share_kept(text, reward):
    assert constraints_kept([], text, metadata(LAMP)) == pytest.approx(reward)


@given(text=st.text(max_size=80), least=st.integers(1, 5), number=st.integers(1, 3))
def test_a_share_is_a_share_and_space_around_counts_nothing(text, least, number):
    given = metadata({"words": [least, least + 3], "sentences": number, "lower_case": True})
    share = constraints_kept([], text, given)
    assert share in (0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1)
    assert constraints_kept([], f"\n {text} ", given) == share
    if not words(text):
        assert share == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "metadata = None of a prompt must be JSON text"),
        ({"metadata": "short"}, "metadata = 'short' of a prompt must be JSON text"),
        (metadata({}), "must be JSON text of its constraints"),
        (metadata([1]), "must be JSON text of its constraints"),
        (metadata({"rhymes": True}), f"constraint 'rhymes' is of no known kind: take one of {', '.join(KINDS)}"),
        (metadata({"words": [5, 3]}), r"constraint words = \[5, 3\] must be \[least, most\]"),
        (metadata({"words": 5}), r"must be \[least, most\]"),
        (metadata({"words": [True, 3]}), r"must be \[least, most\]"),
        (metadata({"sentences": 0}), "constraint sentences = 0 must be a whole number from 1"),
        (metadata({"items": "3"}), "constraint items = '3' must be a whole number from 1"),
        (metadata({"contains": "two words"}), "contains = 'two words' must be one word"),
        (metadata({"begins": "..."}), "begins = '...' must be a phrase with a word"),
        (metadata({"lower_case": False}), "lower_case = False must be true"),
    ],
)
def test_what_no_text_could_be_judged_by_is_refused(given, message):
    with pytest.raises(ConfigurationError, match=message):
        read_constraints(given)


def test_a_reward_gets_the_metadata_of_its_prompt():
    gold = find_gold(Function(function="tasks.rewards.constraints:constraints_kept"))
    stored = json.dumps({"id": "7", **metadata({"contains": "lamp"})})
    answers = [Answer([], "A lamp.", stored), Answer([], "A door.", stored)]
    assert gold_rewards(gold, answers).tolist() == [1, 0]
    with pytest.raises(ConfigurationError, match="must be JSON text of its constraints"):
        gold_rewards(gold, [Answer([], "A lamp.")])


def test_metadata_is_no_option():
    with pytest.raises(ConfigurationError, match=r"options .'metadata'. do not fit"):
        find_gold(Function(function="tasks.rewards.constraints:constraints_kept", options={"metadata": {}}))
