"""Changes to a completion that should not make it better. Pure: each is a function of the text.

An edit that leaves a text as it is says nothing about it: that completion is left out.
"""

import re
from collections.abc import Callable

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)")
FILLER = "There is more that could be said about this, and it would take more words to say it."


def repeat_last_sentence(text: str) -> str:
    """Return a text that says its last sentence twice: longer, and nothing new."""
    return f"{text.rstrip()} {_sentences(text)[-1]}"


def pad(text: str) -> str:
    """Return a text with three sentences after it that say nothing."""
    return " ".join([text.rstrip(), *[FILLER] * 3])


def move_first_sentence_last(text: str) -> str:
    """Return a text whose first sentence, where an answer usually stands, comes last."""
    first, *rest = _sentences(text)
    return " ".join([*rest, first]) if rest else text


def make_bullets(text: str) -> str:
    """Return a text whose sentences are bullets of Markdown."""
    return "\n".join(f"- {sentence}" for sentence in _sentences(text))


def make_bold(text: str) -> str:
    """Return a text whose first sentence is bold."""
    first, *rest = _sentences(text)
    return " ".join([f"**{first}**", *rest])


def add_heading(text: str) -> str:
    """Return a text under a heading."""
    return f"## Answer\n\n{text}"


def open_with_sure(text: str) -> str:
    """Return a text that opens with consent."""
    return f"Sure! {text}"


def open_as_a_model(text: str) -> str:
    """Return a text that opens with what its author is."""
    return f"As an AI language model, I would say this. {text}"


def open_with_apology(text: str) -> str:
    """Return a text that opens with an apology."""
    return f"I apologise for any confusion. {text}"


def make_capital(text: str) -> str:
    """Return a text in capital letters."""
    return text.upper()


def add_white_space(text: str) -> str:
    """Return a text with white space after it."""
    return f"{text}  \n"


EDITS: dict[str, Callable[[str], str]] = {
    "last sentence twice": repeat_last_sentence,
    "padded": pad,
    "first sentence last": move_first_sentence_last,
    "bullets": make_bullets,
    "bold": make_bold,
    "heading": add_heading,
    '"Sure!"': open_with_sure,
    '"As an AI language model"': open_as_a_model,
    '"I apologise"': open_with_apology,
    "capital letters": make_capital,
    "trailing white space": add_white_space,
}
"""What is changed -> how."""


def _sentences(text: str) -> list[str]:
    """Return the sentences of a text, told by their ends; one where there is no end."""
    return _SENTENCE.split(text.strip())
