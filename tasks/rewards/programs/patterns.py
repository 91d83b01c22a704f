"""Regular expressions that a configuration gives: checked early, and ended in time.

They are those of the package `regex`, which has all of `re`'s and a time limit: some patterns take longer than anyone
waits on some texts.
"""

from typing import Annotated

import regex
from pydantic import AfterValidator

from tasks.rewards.options import Text

SECONDS = 5
"""Longest that one search may take."""


def _checked(pattern: str) -> str:
    """Return the pattern.

    Raises:
        ValueError: It is broken; says where.
    """
    try:
        regex.compile(pattern)
    except regex.error as error:
        raise ValueError(
            f"no regular expression: {error.msg} at position {error.pos}: {pattern[error.pos :][:40]!r}"
        ) from error
    return pattern


Pattern = Annotated[Text, AfterValidator(_checked)]
"""A regular expression; flags stand at its beginning, such as `(?is)`."""


def last_match(pattern: str, text: str) -> str | None:
    """Return the last match of a pattern in a text: its first group, or all of it where it has none; None without one.

    Raises:
        ValueError: The search takes too long.
    """
    compiled = regex.compile(pattern)
    try:
        found = [match[min(1, compiled.groups)] for match in compiled.finditer(text, timeout=SECONDS)]
    except TimeoutError as error:
        raise ValueError(
            f"pattern {pattern!r} takes more than {SECONDS} s on {len(text)} characters: "
            "write one without nested repetition"
        ) from error
    return (found[-1] or "") if found else None
