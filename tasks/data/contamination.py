"""Prompts that share words with the prompts of the evaluation: what is trained on them is measured too well.

Two prompts overlap where n successive words of one are in the other (n-grams; 13 in arXiv:2005.14165, appendix C, where
whole documents were compared). Upper and lower case, punctuation and white space make no difference.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.data.conversations import Messages
from tasks.pipeline.progress import log

SHARES_WORDS = "shares words with a held-out prompt"
_LOGGED = 3
"""How many of the overlaps are logged."""
_APOSTROPHES = re.compile("['\u2019]")
_WORD = re.compile(r"\w+")


def words_of(messages: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the words that a conversation's user says, in order.

    System messages are the same in all prompts of a data set, and answers repeat phrases ("I'm sorry, I don't ..."), so
    that neither says what a prompt asks.
    """
    text = "\n".join(message["content"] for message in messages if message["role"] == "user")
    return _WORD.findall(_APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).casefold()))


class Overlap:
    """The n-grams of some prompts; of a prompt with fewer words, all of them, which are found in an equal one alone."""

    def __init__(self, prompts: Iterable[Mapping[str, Any]], n: int) -> None:
        """Take in prompts: rows with `messages`."""
        self.n, self._logged = n, 0
        self._known = {number for row in prompts for number, _ in self._grams(row["messages"])}

    def found(self, where: str, messages: Messages) -> bool:
        """Return whether a prompt overlaps with one of them; log the first that do, by their places."""
        words = next((words for number, words in self._grams(messages) if number in self._known), None)
        if words is not None and self._logged < _LOGGED:
            self._logged += 1
            log(f"{where} shares words with a held-out prompt, and is left out: {words!r}")
        return words is not None

    def _grams(self, messages: Messages) -> Iterator[tuple[bytes, str]]:
        """Yield a hash of each n-gram, which takes less memory, and its words."""
        words = words_of(messages)
        for start in range(max(len(words) - self.n, 0) + 1 if words else 0):
            gram = " ".join(words[start : start + self.n])
            yield hashlib.blake2b(gram.encode(), digest_size=8).digest(), gram
