"""Which script a completion's letters are of. No model: it tells Greek from Latin, and not English from French."""

import functools
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

from tasks.rewards.options import Text


@functools.cache
def _known() -> frozenset[str]:
    """Return the first words of the names of all letters, in lower case: `latin`, `greek`, `cjk`."""
    return frozenset(filter(None, map(_script, map(chr, range(0x110000)))))


@functools.lru_cache(1 << 14)
def _script(character: str) -> str:
    """Return the first word of a letter's Unicode name, in lower case; "" for what is no letter."""
    return unicodedata.name(character, "").partition(" ")[0].lower() if character.isalpha() else ""


def _checked(script: str) -> str:
    """Return the script.

    Raises:
        ValueError: No letter is of it.
    """
    if script not in _known():
        raise ValueError(
            "no letter's Unicode name begins so: write one of latin, greek, cyrillic, arabic, hebrew, devanagari, "
            "thai, hangul, hiragana, katakana, cjk (Chinese characters) ..."
        )
    return script


Script = Annotated[Text, AfterValidator(_checked)]


def letters_of(messages: list[dict], completion: str, scripts: Annotated[list[Script], Field(min_length=1)]) -> float:
    """Return the share of a completion's letters that are of the scripts; 0 without a letter.

    ```yaml
    function: tasks.rewards.programs.scripts:letters_of
    options: {scripts: [hiragana, katakana, cjk]}
    ```

    Args:
        messages: The prompt; unused.
        completion: The text to score.
        scripts: First words of letters' Unicode names, in lower case.
    """
    found = [script for script in map(_script, completion) if script]
    return sum(script in scripts for script in found) / len(found) if found else 0.0
