"""Texts of a model as text alone: escaped, cut, and with the characters that nobody would see made visible."""

import re
import unicodedata

from markupsafe import Markup, escape

LONGEST = 20_000
"""Characters of one text on a page."""
_JOINERS = "\u200c\u200d"
"""Parts of Persian words and of emoji: they hide nothing."""
_HIDDEN = re.compile(r"[^\x20-\x7e\n]")
"""Where to look closer: what may be a control character."""
_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def shown(text: str | None, limit: int = LONGEST) -> Markup:
    """Return a text as HTML; control, bidirectional and other invisible characters are written as their codes.

    Args:
        text: What a model, or a stranger, wrote.
        limit: Show so many characters, and a note of how many follow.
    """
    if text is None:
        return Markup("")
    parts, end = [], 0
    for found in _HIDDEN.finditer(text[:limit]):
        if is_hidden(found[0]):
            code = Markup('<span class="code">{}</span>').format(_code(found[0]))
            parts += [escape(text[end : found.start()]), code]
            end = found.end()
    parts.append(escape(text[end:limit]))
    if len(text) > limit:
        parts.append(Markup(' <span class="cut">… {:,} more characters</span>').format(len(text) - limit))
    return Markup("").join(parts)


def is_hidden(char: str) -> bool:
    """Tell whether a character shows nothing itself, or changes how others are shown."""
    return char not in _JOINERS and char not in "\n\t" and unicodedata.category(char) in _CATEGORIES


def _code(char: str) -> str:
    return ascii(char)[1:-1]
