"""Answers that equal a reference: 1 where they do, else 0. The reference is the prompt's `reference_completion`."""

import re
from fractions import Fraction
from typing import Annotated

from pydantic import Field

from tasks.rewards.programs.numerals import numbers
from tasks.rewards.programs.patterns import Pattern, last_match

COUNTS_WITH = ("tasks.rewards.programs.numerals", "tasks.rewards.programs.patterns")

_MARK = re.compile(r"####|\\boxed\s*(?=\{)|\banswer\b\W{0,4}?(?:\s*is\b|\s*[:=])", re.I)


def exact_answer(
    messages: list[dict],
    completion: str,
    reference_completion: str | None,
    pattern: Pattern | None = None,
    ignore_case: bool = False,
) -> float:
    r"""Return 1 where the answer is the reference, white space aside.

    ```yaml
    function: tasks.rewards.programs.answers:exact_answer
    options: {pattern: '(?s)<answer>(.*?)</answer>', ignore_case: true}
    ```

    Args:
        messages: The prompt; unused.
        completion: The text to score.
        reference_completion: The answer, or a text in which `pattern` finds it too.
        pattern: The answer is the last match, or its first group; a completion without one gets 0. None: all of it.
        ignore_case: Whether `Paris` is `paris`.

    Raises:
        ValueError: The prompt has no reference, or the pattern takes too long.
    """
    reference = _given(reference_completion)
    answer = completion
    if pattern is not None:
        found = last_match(pattern, reference)
        reference = reference if found is None else found
        if (answer := last_match(pattern, completion) or "") == "":
            return 0.0
    return float(_plain(answer, ignore_case) == _plain(reference, ignore_case))


def numeric_answer(
    messages: list[dict],
    completion: str,
    reference_completion: str | None,
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 1e-6,
) -> float:
    r"""Return 1 where the number that the completion states is the reference's.

    A text states the number that follows its last `####`, `\boxed{`, "answer is" or "answer:", on that line or,
    where it says nothing, the next; and after the last "=" there. Without such a mark, or without a number after it, it
    is the text's last number. `numerals.py` says what a number is.

    ```yaml
    function: tasks.rewards.programs.answers:numeric_answer
    options: {tolerance: 0.01}
    ```

    Args:
        messages: The prompt; unused.
        completion: The text to score; one without a number gets 0.
        reference_completion: A text that states the right number.
        tolerance: Largest difference, as a share of the right number.

    Raises:
        ValueError: The prompt has no reference, or one without a number.
    """
    right, found = stated_number(_given(reference_completion)), stated_number(completion)
    if right is None:
        raise ValueError(f"the reference {reference_completion!r} has no number")
    return float(found is not None and abs(found - right) <= Fraction(tolerance) * abs(right))


def gsm8k_answer(
    messages: list[dict], completion: str, reference_completion: str | None, marked: bool = False
) -> float:
    """Return 1 where the completion states the number that GSM8K's solution (arXiv:2110.14168) has after `####`.

    ```yaml
    function: tasks.rewards.programs.answers:gsm8k_answer
    options: {marked: true}
    ```

    Args:
        messages: The prompt; unused.
        completion: The text to score.
        reference_completion: The solution; its last line is `#### 18`.
        marked: Whether the completion must have `####` before its number, as the solutions do.

    Raises:
        ValueError: The prompt has no reference, or one without a number after `####`.
    """
    solution = _given(reference_completion)
    if "####" not in solution or not (right := numbers(solution.rpartition("####")[2])):
        raise ValueError(f"the reference {solution[-80:]!r} has no number after ####")
    if marked and "####" not in completion:
        return 0.0
    stated = completion[completion.rindex("####") :] if marked else completion
    return float(stated_number(stated) == right[0])


def stated_number(text: str) -> Fraction | None:
    """Return the number that a text states, as `numeric_answer` says; None where it has no number."""
    if marks := [*_MARK.finditer(text)]:
        rest = text[marks[-1].end() :]
        part = (
            _braced(rest)
            if rest.startswith("{")
            else next((line for line in rest.splitlines() if re.search(r"\w", line)), "")
        )
        if found := numbers(part.rpartition("=")[2]):
            return found[0]
    found = numbers(text)
    return found[-1] if found else None


def _braced(text: str) -> str:
    """Return what is between the brace that a text begins with and the one that closes it."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[1:place]
    return text[1:]


def _given(reference: str | None) -> str:
    """Return the reference, which must be there."""
    if reference is None or not reference.strip():
        raise ValueError("the prompt has no reference: put the answer into the column answer or completion of its row")
    return reference


def _plain(text: str, ignore_case: bool) -> str:
    """Return a text with one space between its words."""
    text = " ".join(text.split())
    return text.casefold() if ignore_case else text
