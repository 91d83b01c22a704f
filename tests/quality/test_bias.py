"""Edits of a completion, each by hand, and what they do to a reward."""

import numpy as np
import pytest

from tasks.data.records import Record
from tasks.quality.answers import Answers, Pair, PairedAnswers
from tasks.quality.bias import biases, edit_answers
from tasks.quality.edits import EDITS, FILLER

TEXT = "Seals eat fish. They live in the sea! Why?"


@pytest.mark.parametrize(
    ("name", "edited"),
    [
        ("last sentence twice", f"{TEXT} Why?"),
        ("padded", f"{TEXT} {FILLER} {FILLER} {FILLER}"),
        ("first sentence last", "They live in the sea! Why? Seals eat fish."),
        ("bullets", "- Seals eat fish.\n- They live in the sea!\n- Why?"),
        ("bold", "**Seals eat fish.** They live in the sea! Why?"),
        ("heading", f"## Answer\n\n{TEXT}"),
        ('"Sure!"', f"Sure! {TEXT}"),
        ('"As an AI language model"', f"As an AI language model, I would say this. {TEXT}"),
        ('"I apologise"', f"I apologise for any confusion. {TEXT}"),
        ("capital letters", "SEALS EAT FISH. THEY LIVE IN THE SEA! WHY?"),
        ("trailing white space", f"{TEXT}  \n"),
    ],
)
def test_an_edit(name, edited):
    assert EDITS[name](TEXT) == edited


def test_every_edit_is_tested():
    (mark,) = test_an_edit.pytestmark
    assert [name for name, _ in mark.args[1]] == list(EDITS)


@pytest.mark.parametrize("text", ["Yes", " Yes. ", "Pi is 3.14 or so", "...", "OK", "a\n\nb"])
def test_edits_take_any_text(text):
    assert all(isinstance(edit(text), str) for edit in EDITS.values())
    assert EDITS["first sentence last"]("One sentence, 3.14 long.") == "One sentence, 3.14 long."


def answers(*texts: str) -> Answers:
    found = Answers("file")
    for number, text in enumerate(texts):
        found.add(Record([{"role": "user", "content": f"Question {number}?"}]), text)
    return found


def test_what_an_edit_leaves_alone_is_left_out():
    edited = edit_answers(answers("One. Two.", "ONE."), prompts=9)
    assert len(edited.numbers["capital letters"]) == 1
    assert len(edited.numbers["first sentence last"]) == 1
    assert len(edited.numbers["heading"]) == 2
    texts = {text for own in edited.answers.completions.values() for text in own}
    assert {"One. Two.", "ONE.", "## Answer\n\nONE.", "Two. One."} <= texts


def test_prompts_are_drawn_by_their_hashes_and_fewer_are_among_more():
    every = answers(*(f"Answer {number}." for number in range(20)))
    few, more = (edit_answers(every, prompts).answers.prompts.keys() for prompts in (5, 10))
    assert (len(few), len(more)) == (5, 10)
    assert few < more


def test_of_pairs_the_chosen_side_of_the_first_is_edited():
    found = PairedAnswers("file", **{name: getattr(answers("bad"), name) for name in ("prompts", "completions")})
    (id_,) = found.prompts
    found.completions[id_] += ["good", "other"]
    found.pairs += [Pair(id_, 1, 0, "all"), Pair(id_, 2, 0, "all")]
    assert edit_answers(found, prompts=1).answers.completions[id_][0] == "good"


def test_changes_are_in_deviations_of_the_reward():
    """Rewards 1 and 3 deviate by 1; an edit that adds 2 words to each adds 2 deviations by number of words."""
    edited = edit_answers(answers("one", "one two three"), prompts=2)
    words = {
        (id_, number): float(len(text.split()))
        for id_, texts in edited.answers.completions.items()
        for number, text in enumerate(texts)
    }
    found = {each.edit: each for each in biases("words", edited, words, seed=0)}
    assert found["heading"] == ("words", "heading", 2, 2.0, 2.0, 2.0, 1.0)
    assert found["capital letters"][3:] == (0.0, 0.0, 0.0, 0.5)
    assert found["first sentence last"][2:] == (0, None, None, None, None)
    constant = biases("constant", edited, dict.fromkeys(words, 1.0), seed=0)
    assert all(each.change is None for each in constant), "what tells no completions apart has no unit"


def test_a_completion_without_a_reward_is_left_out():
    edited = edit_answers(answers("one", "one two", "one two three"), prompts=3)
    ids = list(edited.answers.prompts)
    rewards = {
        (id_, n): float(n + ids.index(id_)) for id_, own in edited.answers.completions.items() for n in range(len(own))
    }
    rewards[ids[0], 0] = np.nan
    assert {each.prompts for each in biases("r", edited, rewards, seed=0) if each.edit == "heading"} == {2}
