"""Chat templates that write today's date, pinned to one date."""

import re
from datetime import UTC, date, datetime

CLOCK = "strftime_now"
"""What templates call to write today's date (Llama 3.2, SmolLM3, Granite, gpt-oss)."""
_LETTERS = "aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyYzZf"
_FLAGS = ("", "-", "_", "0", "^")
"""What glibc takes between the percent sign and the letter: no padding, spaces, zeros, capitals."""
_PERCENT = "<percent>"
_PINNED = re.compile(r"\{#- always (\d{4}-\d{2}-\d{2}) -#\}")


def pin_date(template: str, day: date) -> str:
    """Return a template that always writes the same date; a template that asks for no date, or is pinned, stays.

    A prompt that is rendered with today's date when it is sampled has other tokens when it is trained on tomorrow. A
    macro of the function's name takes its place, wherever the stored model is used: it replaces each directive of
    `strftime` in whatever format it is given, at midnight of that day in UTC.
    """
    if CLOCK not in template or pinned_date(template) is not None:
        return template
    then = datetime(day.year, day.month, day.day)
    directives = [f"%{flag}{letter}" for flag in _FLAGS for letter in _LETTERS]
    seconds = str(int(then.replace(tzinfo=UTC).timestamp()))
    pairs = [("%%", _PERCENT), ("%s", seconds), *((name, then.strftime(name)) for name in directives), (_PERCENT, "%")]
    table = ", ".join(f"({name!r}, {text!r})" for name, text in pairs)
    macro = (
        f"{{%- macro {CLOCK}(format) -%}}{{%- set made = namespace(text=format) -%}}"
        f"{{%- for name, text in [{table}] -%}}{{%- set made.text = made.text.replace(name, text) -%}}{{%- endfor -%}}"
        "{{- made.text -}}{%- endmacro %}"
    )
    # The template follows on a line of its own: a newline after a block is taken away, one of the template's is not.
    return f"{{#- always {day.isoformat()} -#}}{macro}\n{template}"


def pinned_date(template: str) -> str | None:
    """Return the date that a template is pinned to, in ISO form; None where it is not."""
    found = _PINNED.match(template)
    return found.group(1) if found else None
