"""The form of a completion, whatever it says."""

import json
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tasks.rewards.programs.blocks import last_block
from tasks.rewards.programs.patterns import Pattern, last_match

COUNTS_WITH = ("tasks.rewards.programs.blocks", "tasks.rewards.programs.patterns")


def matches(messages: list[dict], completion: str, pattern: Pattern, wanted: bool = True) -> float:
    r"""Return 1 where a pattern is found in the completion, or where it is not found if it is not wanted; else 0.

    ```yaml
    function: tasks.rewards.programs.form:matches
    options: {pattern: '(?s)\A\s*<think>.*</think>\s*<answer>.*</answer>\s*\Z'}
    ```

    Args:
        messages: The prompt; unused.
        completion: The text to score.
        pattern: A regular expression; `\A` and `\Z` tie it to the ends of the text.
        wanted: Whether it must be found, or must not.

    Raises:
        ValueError: The search takes too long.
    """
    return float((last_match(pattern, completion) is not None) == wanted)


def _ordered(bounds: list[int | None]) -> list[int | None]:
    """Return the bounds.

    Raises:
        ValueError: They are not in order, or bound nothing.
    """
    least, most = bounds
    if least is None and most is None:
        raise ValueError("[null, null] bounds nothing: give a least or a most")
    if least is not None and most is not None and least > most:
        raise ValueError("the least must be at most the most")
    return bounds


Bounds = Annotated[
    list[Annotated[int, Field(ge=0)] | None], Field(min_length=2, max_length=2), AfterValidator(_ordered)
]
"""[least, most]; null: no bound."""


def length(
    messages: list[dict],
    completion: str,
    bounds: Bounds,
    unit: Literal["words", "characters", "lines"] = "words",
    slack: Annotated[int, Field(ge=0)] = 0,
) -> float:
    """Return 1 within the bounds and less beyond: 1 - distance / slack, and 0 from a distance of `slack` on.

    ```yaml
    function: tasks.rewards.programs.form:length
    options: {bounds: [50, 200], slack: 100}
    ```

    Args:
        messages: The prompt; unused.
        completion: The text to score.
        bounds: [least, most], both within; null: no bound.
        unit: What is counted: runs of what is no white space, characters without the white space around, or lines.
        slack: Over how much beyond the bounds the reward falls to 0; 0: at once.
    """
    text = completion.strip()
    count = {"words": len(text.split()), "characters": len(text), "lines": len(text.splitlines())}[unit]
    least, most = bounds
    distance = max(0 if least is None else least - count, 0 if most is None else count - most, 0)
    return max(0.0, 1 - distance / slack) if slack else float(distance == 0)


def valid_json(messages: list[dict], completion: str, keys: list[str] | None = None, fenced: bool = False) -> float:
    """Return 1 where the completion is JSON (RFC 8259: neither NaN nor Infinity), else 0.

    ```yaml
    function: tasks.rewards.programs.form:valid_json
    options: {keys: [name, age], fenced: true}
    ```

    Args:
        messages: The prompt; unused.
        completion: The text to score.
        keys: Keys that it must have, as an object. None: it may be any JSON.
        fenced: Whether it is the last fenced block of the completion, not all of it.
    """
    text = last_block(completion, ["json"]) if fenced else completion
    try:
        value = json.loads(text or "", parse_constant=_refuse)
    except (ValueError, RecursionError):
        return 0.0
    return float(not keys or (isinstance(value, dict) and set(keys) <= value.keys()))


def _refuse(constant: str) -> None:
    """Refuse a constant that Python reads and JSON lacks."""
    raise ValueError(f"{constant} is no JSON")


def distinct_ngrams(messages: list[dict], completion: str, n: Annotated[int, Field(ge=1)] = 4) -> float:
    """Return the share of different ones among a completion's n-grams: below 1 where it repeats itself.

    ```yaml
    function: tasks.rewards.programs.form:distinct_ngrams
    options: {n: 3}
    ```

    Args:
        messages: The prompt; unused.
        completion: The text to score; one of fewer than n words gets 1.
        n: How many neighbouring words; case counts nothing.
    """
    words = completion.lower().split()
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0
