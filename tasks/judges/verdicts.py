"""Verdicts read out of a judge's answer, strictly: one for each thing that was asked for, or none at all. Pure."""

import re
from collections.abc import Sequence

from tasks.config.judges import HIGHEST, LOWEST

SINGLE = ("",)
"""Names of a verdict that stands by itself."""
_MARK = re.compile(r"\[\[([^\[\]]*)\]\]")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
ECHO = 24
"""Characters before a verdict that make it an echo where they stand before the same verdict in what was asked."""
SIDES = {"A": 1.0, "B": 0.0, "C": 0.5}
"""Verdict on a pair -> what the answer shown first wins; a tie is half a win."""


def read_marks(text: str, names: Sequence[str] = SINGLE) -> list[str] | None:
    """Return what stands in double brackets for each name; None where it is not exactly one for each.

    A named verdict is a line with the name and the brackets. What a model has thought aloud does not count.
    """
    said = without_thoughts(text)
    marks = _MARK.findall(said)
    if len(marks) != len(names):
        return None
    if tuple(names) == SINGLE:
        return [marks[0].strip()]
    lines = [re.findall(rf"^[^\w\[\n]*{re.escape(name)}[^\w\[\n]*{_MARK.pattern}", said, re.M | re.I) for name in names]
    return [found[0].strip() for found in lines] if all(len(found) == 1 for found in lines) else None


def is_echo(text: str, asked: str) -> bool:
    """Tell whether an answer repeats a verdict of what was asked, such as its example, after the same words.

    Weak models repeat the question: without this, SmolLM2-135M rated 13 of 64 answers, each with the example's 5.
    """
    said, asked = (" ".join(each.split()) for each in (without_thoughts(text), asked))
    marks = (mark for mark in _MARK.finditer(said) if mark.start() >= ECHO)
    return any(said[mark.start() - ECHO : mark.end()] in asked for mark in marks)


def without_thoughts(text: str) -> str:
    """Return a text after what a model has thought aloud; nothing of one that was cut before `</think>`."""
    said = text.rpartition("</think>")[2]
    return "" if "<think>" in said else said.strip()


def read_ratings(text: str, names: Sequence[str] = SINGLE) -> list[float] | None:
    """Return the rating for each name, `[[n]]` from 1 to 10 as in MT-Bench (arXiv:2306.05685); None: unreadable."""
    marks = read_marks(text, names)
    if marks is None or not all(map(_NUMBER.fullmatch, marks)):
        return None
    ratings = [float(mark) for mark in marks]
    return ratings if all(LOWEST <= rating <= HIGHEST for rating in ratings) else None


def read_sides(text: str, names: Sequence[str] = SINGLE) -> list[float] | None:
    """Return what the answer shown first wins for each name: 1 `[[A]]`, 0 `[[B]]`, 0.5 `[[C]]`; None: unreadable."""
    marks = read_marks(text, names)
    if marks is None or not all(mark in SIDES for mark in marks):
        return None
    return [SIDES[mark] for mark in marks]


def both_orders(shown: float, swapped: float) -> float:
    """Return what the first answer wins, shown first and second; half, a tie, where the two verdicts disagree."""
    return shown if shown == 1 - swapped else 0.5


def by_priority(wins: Sequence[float], priorities: Sequence[int]) -> float:
    """Return what the first answer wins by several principles: 1, 0, or 0.5 where none decides.

    The principles of the lowest number vote; where their votes are even, those of the next number do.

    Args:
        wins: What it wins by each principle.
        priorities: Of each principle.
    """
    for priority in sorted(set(priorities)):
        balance = sum(win - 0.5 for win, own in zip(wins, priorities, strict=True) if own == priority)
        if balance:
            return 1.0 if balance > 0 else 0.0
    return 0.5
