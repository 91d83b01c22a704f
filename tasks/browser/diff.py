"""Two texts compared word by word."""

import re
from difflib import SequenceMatcher
from typing import NamedTuple

MOST_WORDS = 400
"""Words of each text that are compared: the time may grow with their product."""
_WORD = re.compile(r"\s*\S+(?:\s+\Z)?|\s+")


class WordDiff(NamedTuple):
    """What of two texts is alike: runs of words, each with whether it is in the other text too."""

    left: list[tuple[bool, str]]
    right: list[tuple[bool, str]]
    uncompared: int
    """Words that follow in either text and were not compared."""


def word_diff(left: str, right: str) -> WordDiff:
    """Return which words of two texts are in both, in the same order.

    Words are compared without the space around them; of each text the first `MOST_WORDS`.
    """
    ours, theirs = _WORD.findall(left), _WORD.findall(right)
    uncompared = max(0, len(ours) - MOST_WORDS) + max(0, len(theirs) - MOST_WORDS)
    ours, theirs = ours[:MOST_WORDS], theirs[:MOST_WORDS]
    matcher = SequenceMatcher(None, _bare(ours), _bare(theirs), autojunk=False)
    lefts: list[tuple[bool, str]] = []
    rights: list[tuple[bool, str]] = []
    for tag, start, end, other_start, other_end in matcher.get_opcodes():
        if start < end:
            lefts.append((tag == "equal", "".join(ours[start:end])))
        if other_start < other_end:
            rights.append((tag == "equal", "".join(theirs[other_start:other_end])))
    return WordDiff(lefts, rights, uncompared)


def _bare(words: list[str]) -> list[str]:
    return [word.strip() for word in words]
