"""Chat templates that write today's date, made to write always the same."""

from datetime import date, datetime

CLOCK = "strftime_now"
"""What templates call to write today's date (Llama 3.2, SmolLM3, Granite, gpt-oss)."""
_DIRECTIVES = [
    "-d",
    "-m",
    "-H",
    "-I",
    "-M",
    "-S",
    "-j",
    "a",
    "A",
    "w",
    "d",
    "e",
    "b",
    "B",
    "h",
    "m",
    "y",
    "Y",
    "H",
    "I",
    "p",
    "M",
    "S",
    "f",
    "j",
    "U",
    "W",
    "u",
    "G",
    "V",
    "c",
    "x",
    "X",
    "D",
    "F",
    "T",
    "R",
]
_PERCENT = "<percent>"


def on_a_fixed_day(template: str, day: date) -> str:
    """Return a template for which it is always the same day; one that asks for no date is returned as it is.

    A prompt that is rendered with today's date when it is sampled has other tokens when it is trained on tomorrow. A
    macro of the function's name takes its place, wherever the stored model is used: it replaces each directive of
    `strftime` in whatever format it is given, at midnight of that day.
    """
    if CLOCK not in template:
        return template
    then = datetime(day.year, day.month, day.day)
    pairs = [("%%", _PERCENT), *((f"%{name}", then.strftime(f"%{name}")) for name in _DIRECTIVES), (_PERCENT, "%")]
    replaced = "".join(f" | replace('{directive}', '{text}')" for directive, text in pairs)
    # The template follows on a line of its own: a newline after a block is taken away, one of the template's is not.
    return f"{{%- macro {CLOCK}(format) -%}}{{{{ format{replaced} }}}}{{%- endmacro %}}\n{template}"
