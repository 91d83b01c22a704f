"""The instructions: what is held out, what the sentences ask for, and what trivial answers would get."""

import json
import random

import numpy as np
import pytest

from tasks.data.records import parse_record
from tasks.examples import instructions as made
from tasks.rewards.constraints import KINDS, constraints_kept, read_constraints

SENTENCE = (
    "The old house by the river has a small garden with many flowers and a quiet path to the water there."  # 20 words
)


def drawn(held_out: bool) -> list[dict]:
    size = made.EVALUATION_PROMPTS if held_out else made.PROMPTS
    return made.instructions(size, held_out, random.Random("0/a test"))


def test_several_hundred_different_prompts():
    rows = drawn(False) + drawn(True)
    assert len({row["prompt"] for row in rows}) == len(rows) == 500


def test_topics_and_combinations_are_held_out():
    topics, held_out = made.read_topics(made.TOPICS), made.read_topics(made.HELD_OUT_TOPICS)
    assert (len(topics), len(held_out)) == (48, 16)
    assert not topics.keys() & held_out.keys()
    assert all(len(own) == 2 for own in (*topics.values(), *held_out.values()))
    shapes = [{frozenset(json.loads(row["metadata"])) for row in drawn(side)} for side in (False, True)]
    assert not shapes[0] & shapes[1]
    kinds = [{kind for shape in own for kind in shape} for own in shapes]
    assert kinds[0] == kinds[1] == set(made.SAYS) <= KINDS.keys(), "every kind is learned, and asked for again"


@pytest.mark.parametrize("held_out", [False, True])
def test_an_instruction_says_what_is_checked(held_out):
    for row in drawn(held_out):
        constraints = read_constraints({"metadata": row["metadata"]})
        assert constraints["words"][0] >= 14, "no short answer keeps all"
        for kind, bound in constraints.items():
            assert row["prompt"].count(made.say(kind, bound)) == 1
        assert json.loads(parse_record(row, "prompts").metadata)["metadata"] == row["metadata"]


def test_how_constraints_are_said():
    assert made.say("words", [8, 15]) == "Use 8 to 15 words."
    assert made.say("sentences", 1) == "Write exactly one sentence."
    assert made.say("items", 3) == "Make a numbered list of exactly three items."
    assert made.say("contains", "lamp") == 'Use the word "lamp".'
    assert made.say("ends", "thank you") == 'End with "thank you".'


def mean_reward(answer) -> float:
    rows = drawn(True)
    return float(np.mean([constraints_kept([], answer(row["prompt"]), {"metadata": row["metadata"]}) for row in rows]))


@pytest.mark.parametrize(
    ("answer", "most"),
    [
        (lambda prompt: "", 0),
        (lambda prompt: "yes", 0.15),
        (lambda prompt: prompt, 0.2),
        (lambda prompt: SENTENCE, 0.3),
    ],
    ids=["empty", "yes", "echo", "sentence"],
)
def test_trivial_answers_to_held_out_instructions_keep_few(answer, most):
    assert mean_reward(answer) <= most


def test_files_are_the_same_every_time(tmp_path):
    for folder in ("a", "b"):
        made.write_instructions(tmp_path / folder)
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert sorted(files) == ["evaluation_prompts.jsonl", "prompts.jsonl"]
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert len(files["prompts.jsonl"].splitlines()) == made.PROMPTS
    made.write_instructions(tmp_path / "a")
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
