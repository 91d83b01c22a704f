"""A gold reward for instructions with constraints that a program can check: the share of them that an answer keeps.

The constraints of a prompt are its metadata: JSON text of kind -> bound, such as `{"words": [10, 30], "contains":
"lamp"}`. This is the idea of IFEval (arXiv:2311.07911). Each kind asks for something to be there, so that no constraint
is kept by saying nothing: a text without a word keeps none.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tasks.config.errors import ConfigurationError

_WORD = r"[^\W\d_]+(?:['’-][^\W\d_]+)*"  # noqa: RUF001
_ITEM = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+\S", re.M)
_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)")


def words(text: str) -> list[str]:
    """Return the lower-case words of a text: runs of letters, apostrophes and hyphens allowed within."""
    return re.findall(_WORD, text.lower())


def sentences(text: str) -> int:
    """Return how many sentences a text has: parts with a word, each up to `.`, `!` or `?` before a space or the end."""
    return sum(bool(words(part)) for part in _END.split(text))


def items(text: str) -> int:
    """Return how many items of a list a text has: lines that begin with a number, a dash, an asterisk or a bullet."""
    return len(_ITEM.findall(text))


def _has_words(text: str, bound: list[int]) -> bool:
    least, most = bound
    return least <= len(words(text)) <= most


def _plain(text: str, phrase: str = "") -> str:
    """Return a text's words with one space between them; where a phrase is quoted, as a prompt does, it is left out."""
    used = re.sub(rf"[\"“]{re.escape(phrase)}[\"”]", " ... ", text, flags=re.I) if phrase else text
    return " ".join(words(used))


KINDS: dict[str, Callable[[str, Any], bool]] = {
    "words": _has_words,
    "sentences": lambda text, number: sentences(text) == number,
    "items": lambda text, number: items(text) == number,
    "contains": lambda text, word: f" {_plain(word)} " in f" {_plain(text, word)} ",
    "begins": lambda text, phrase: f"{_plain(text, phrase)} ".startswith(f"{_plain(phrase)} "),
    "ends": lambda text, phrase: f" {_plain(text, phrase)}".endswith(f" {_plain(phrase)}"),
    "lower_case": lambda text, wanted: text == text.lower(),
}
"""Kind of a constraint -> whether a text keeps it, given the bound.

words       [least, most] words
sentences   so many sentences
items       a list of so many items
contains    this word
begins      these are the first words
ends        these are the last words
lower_case  no capital letter; the bound is true

Of words and phrases, neither case nor punctuation counts, and one in quotation marks is not used, but repeated from the
prompt.
"""


def read_constraints(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constraints of a prompt, kind -> bound.

    Args:
        metadata: The prompt's; its `metadata` is JSON text.

    Raises:
        ConfigurationError: There are none, or one is of no known kind or has a bound that is none of it.
    """
    text = metadata.get("metadata")
    try:
        constraints = json.loads(text) if isinstance(text, str) else None
    except json.JSONDecodeError:
        constraints = None
    if not isinstance(constraints, dict) or not constraints:
        raise ConfigurationError(
            f"metadata = {text!r} of a prompt must be JSON text of its constraints, such as "
            '{"words": [10, 30], "contains": "lamp"}: write it into the column metadata of the prompts'
        )
    for kind, bound in constraints.items():
        _check(kind, bound)
    return constraints


def _check(kind: str, bound: Any) -> None:
    """Refuse a constraint that no text could be judged by."""
    if kind not in KINDS:
        raise ConfigurationError(f"constraint {kind!r} is of no known kind: take one of {', '.join(KINDS)}")
    match kind:
        case "words":
            fits = isinstance(bound, list) and len(bound) == 2 and all(type(each) is int for each in bound)
            fits, needs = fits and 1 <= bound[0] <= bound[1], "[least, most], 1 <= least <= most"
        case "sentences" | "items":
            fits, needs = type(bound) is int and bound >= 1, "a whole number from 1"
        case "lower_case":
            fits, needs = bound is True, "true: leave it out otherwise"
        case "contains":
            fits, needs = isinstance(bound, str) and words(bound) == [bound.lower()], "one word"
        case _:
            fits, needs = isinstance(bound, str) and bool(words(bound)), "a phrase with a word"
    if not fits:
        raise ConfigurationError(f"constraint {kind} = {bound!r} must be {needs}")


def kept(constraints: Mapping[str, Any], completion: str) -> dict[str, bool]:
    """Return kind -> whether a completion keeps the constraint; one without a word keeps none."""
    said = bool(words(completion))
    return {kind: said and KINDS[kind](completion.strip(), bound) for kind, bound in constraints.items()}


def constraints_kept(messages: list[dict], completion: str, metadata: Mapping[str, Any]) -> float:
    """Return the share of a prompt's constraints that a completion keeps, in [0, 1].

    Args:
        messages: The prompt; unused.
        completion: The text to judge.
        metadata: The prompt's, with its constraints.

    Raises:
        ConfigurationError: See `read_constraints`.
    """
    found = kept(read_constraints(metadata), completion)
    return sum(found.values()) / len(found)
