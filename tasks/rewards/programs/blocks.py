"""Fenced blocks of a completion."""

import re
import textwrap
from collections.abc import Collection

_BLOCK = re.compile(r"^[ \t]*```[ \t]*([\w+#.-]*)[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.M | re.S)


def last_block(text: str, languages: Collection[str]) -> str | None:
    """Return the last fenced block that names one of the languages or none; None without one.

    A block that is not closed, such as that of a truncated completion, is none.
    """
    found = [code for language, code in _BLOCK.findall(text) if language.lower() in {"", *languages}]
    return textwrap.dedent(found[-1]) if found else None
