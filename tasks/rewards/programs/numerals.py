"""Numbers in a text, exact: signs, currencies, thousands, decimals, exponents, fractions, some LaTeX.

A number is read with the unit that follows it left out: `$18.50`, `18.5 dollars` and `18.5%` are 18.5. Words are not
read: `1.5 million` is 1.5. Neither are decimal commas or spaces between thousands: `3,5` and `3 500` are two numbers.
A minus counts right before the number, and not after another one: `5-3` and `5 - 3` are 5 and 3.
"""

import re
from fractions import Fraction

_LATEX = (
    (re.compile(r"(?<=\d)\s*(?=\\[dt]?frac)"), " "),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}"), r"\1/\2"),
    (re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)"), r"\1/\2"),
    (re.compile(r"\\[,!;: ]|\{,\}(?=\d)"), lambda match: "," if match[0][0] == "{" else ""),
    (re.compile(r"\\([$%])"), r"\1"),
)
_WHOLE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_NUMBER = re.compile(
    rf"""(?:(?<![\w.)\]}}])(?P<sign>[-+\N{{MINUS SIGN}}]))?
    (?:[$€£¥]\s?(?P<minus>[-\N{{MINUS SIGN}}])?)?
    (?<![\w.])(?:
        (?P<mixed>\d{{1,9}})\s+(?P<part>\d{{1,9}}/0*[1-9]\d{{0,8}})(?![\d/.])
      | (?P<top>{_WHOLE})\s*/\s*(?P<bottom>0*[1-9]\d{{0,8}})(?![\d/.])
      | (?P<decimal>{_WHOLE}(?:\.\d+)?|\.\d+)(?P<power>[eE][-+]?\d{{1,3}}(?!\d))?
    )""",
    re.X,
)
LONGEST = 400
"""Most characters of a number; a longer one is none."""


def numbers(text: str) -> list[Fraction]:
    """Return the numbers of a text, in order."""
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    return [_value(match) for match in _NUMBER.finditer(text) if len(match[0]) <= LONGEST]


def _value(match: re.Match[str]) -> Fraction:
    """Return the number that a match is."""
    is_negative = (match["sign"] or "").startswith(("-", "\N{MINUS SIGN}")) != bool(match["minus"])
    if match["mixed"]:
        value = Fraction(match["mixed"]) + Fraction(match["part"])
    elif match["top"]:
        value = Fraction(match["top"].replace(",", "")) / Fraction(match["bottom"])
    else:
        value = Fraction(match["decimal"].replace(",", "") + (match["power"] or ""))
    return -value if is_negative else value
