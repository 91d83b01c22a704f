"""Text that a model wrote, made safe to show: a terminal and a page get no characters that nobody sees."""

import unicodedata

JOINERS = "\u200c\u200d"
"""Parts of Persian words and of emoji: they hide nothing."""
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of control characters, direction marks, lone surrogates, and of what no font has."""


def printable(text: str) -> str:
    """Show control characters, direction marks and the like by their codes instead of sending them on."""
    return "".join(code_of(char) if is_hidden(char) else char for char in text)


def is_hidden(char: str) -> bool:
    """Tell whether a character shows nothing itself, or changes how others are shown; spaces of any width do not."""
    return char not in JOINERS and char not in "\n\t" and unicodedata.category(char) in HIDDEN


def code_of(char: str) -> str:
    """Return a character's code as Python writes it."""
    return ascii(char)[1:-1]
