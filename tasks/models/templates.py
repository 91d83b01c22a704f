"""Chat templates that write today's date, made to write always the same."""

import re
from datetime import UTC, date, datetime

CLOCK = "strftime_now"
"""What templates call to write today's date (Llama 3.2, SmolLM3, Granite, gpt-oss)."""
_LETTERS = "aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyYzZf"
_FLAGS = ("", "-", "_", "0", "^")
"""What glibc takes between the percent sign and the letter: no padding, spaces, zeros, capitals."""
_PERCENT = "<percent>"
_PINNED = re.compile(r"\{#- always (\d{4}-\d{2}-\d{2}) -#\}")


def on_a_fixed_day(template: str, day: date) -> str:
    """Return a template for which it is always the same day; one that asks for no date, or is so already, stays.

    A prompt that is rendered with today's date when it is sampled has other tokens when it is trained on tomorrow. A
    macro of the function's name takes its place, wherever the stored model is used: it replaces each directive of
    `strftime` in whatever format it is given, at midnight of that day in UTC.
    """
    if CLOCK not in template or fixed_day(template) is not None:
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


def fixed_day(template: str) -> str | None:
    """Return the day that it always is for a template, as a date in ISO form; None where it asks for none."""
    found = _PINNED.match(template)
    return found.group(1) if found else None
