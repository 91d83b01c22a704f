"""The same mathematics, and languages: rewards of packages that are extras."""

import threading

import pytest

pytest.importorskip("math_verify", reason="needs the extra `math`")
pytest.importorskip("py3langid", reason="needs the extra `language`")

from tasks.rewards.programs.language import in_language
from tasks.rewards.programs.math_answer import math_answer


@pytest.mark.parametrize(
    ("completion", "reference", "reward"),
    [
        (r"$\frac{1}{2}$", "0.5", 1),
        (r"The answer is \boxed{x=\frac{1}{2}}.", r"$\frac12$", 1),
        ("so $x^2+2x+1$", "$(x+1)^2$", 1),
        (r"$\{1,2\}$", r"$\{2,1\}$", 1),
        ("$(1,2)$", "$[1,2]$", 0),
        ("I do not know.", "18", 0),
        ("19", "18", 0),
        ("", "18", 0),
    ],
)
def test_the_same_mathematics(completion, reference, reward):
    assert math_answer([], completion, reference) == reward


def test_what_takes_too_long_is_killed_and_the_next_one_scored():
    with pytest.raises(ValueError, match=r"more than seconds = 1 on this answer|died of this answer"):
        math_answer([], r"\boxed{9^{9^{9^{9}}}}", "18", seconds=1)
    assert math_answer([], "18", "18") == 1


def test_any_thread_may_ask():
    found = {}

    def ask(number: int) -> None:
        found[number] = math_answer([], f"${number}+{number}$", str(2 * number))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(8), 1.0)


@pytest.mark.parametrize(("reference", "why"), [("no maths", "has no mathematics"), (None, "has no reference")])
def test_a_prompt_without_mathematics_is_not_scored(reference, why):
    with pytest.raises(ValueError, match=why):
        math_answer([], "3", reference)


def test_languages():
    english, german = "The cat sat on the mat and looked out.", "Die Katze saß auf der Matte und sah hinaus."
    assert in_language([], german, "de") > 0.9 > 0.1 > in_language([], english, "de")
    assert in_language([], english, "en") > 0.9
    assert in_language([], "12 + 3", "en") == 0
