"""Texts of a model as text alone: escaped, cut, and with the characters that nobody would see made visible."""

import re

from markupsafe import Markup, escape

from tasks.inspection.printable import code_of, is_hidden

LONGEST = 20_000
"""Characters of one text on a page."""
_HIDDEN = re.compile(r"[^\x20-\x7e\n]")
"""Where to look closer: what may be a control character."""


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
            code = Markup('<span class="code">{}</span>').format(code_of(found[0]))
            parts += [escape(text[end : found.start()]), code]
            end = found.end()
    parts.append(escape(text[end:limit]))
    if len(text) > limit:
        parts.append(Markup(' <span class="cut">… {:,} more characters</span>').format(len(text) - limit))
    return Markup("").join(parts)
