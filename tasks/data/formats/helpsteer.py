"""HelpSteer 1 to 3: attributes, and strengths of preference.

`helpsteer` (arXiv:2311.09528, arXiv:2406.08673) has one response a row with five attributes from 0 to 4, of which a
source names the one that counts. The margin is its difference. `helpsteer2_preference` (arXiv:2410.01257) and
`helpsteer3` (arXiv:2505.11475) have two responses and a strength from -3 (the first is much better) to 3 (the second
is). The margin is its size, 1 to 3.
"""

import re
from collections.abc import Iterator
from typing import Any

from tasks.data.columns import Values
from tasks.data.conversations import BadRow, checked_text
from tasks.data.formats.rankings import Format, Graded, Ranking, number_in, says

_ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
_STRONGEST = 3
_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def read_attributes(values: Values, dimension: str) -> Iterator[Ranking]:
    """Yield the response of a row."""
    yield Ranking(_asked(values), [Graded(says(values["response"]), number_in(values, dimension))])


def read_helpsteer2_preference(values: Values, dimension: str) -> Iterator[Ranking]:
    """Yield the two responses of a row."""
    responses = values["response_1"], values["response_2"]
    yield Ranking(_asked(values), _by_strength(responses, number_in(values, "preference_strength")))


def read_helpsteer3(values: Values, dimension: str) -> Iterator[Ranking]:
    """Yield the two responses of a row."""
    responses = values["response1"], values["response2"]
    strength = number_in(values, "overall_preference")
    yield Ranking({"prompt": values["context"]}, _by_strength(responses, strength))


def _by_strength(responses: tuple[Any, Any], strength: float) -> list[Graded]:
    if abs(strength) > _STRONGEST:
        raise BadRow(f"a preference is not from -{_STRONGEST} to {_STRONGEST}")
    return [Graded(says(responses[0]), -strength / 2), Graded(says(responses[1]), strength / 2)]


def _asked(values: Values) -> dict[str, Any]:
    """Return the prompt: the first turn of the user, and those that follow behind their markers."""
    first, *more = _TURN.split(checked_text(values["prompt"], "prompt"))
    turns = zip(("User", *more[::2]), (first, *more[1::2]), strict=True)
    return {"prompt": [{"role": speaker.lower(), "content": text} for speaker, text in turns]}


HELPSTEER = Format(
    "helpsteer",
    frozenset({"prompt", "response", *_ATTRIBUTES}),
    read_attributes,
    dimensions=_ATTRIBUTES,
    is_spread=True,
)
HELPSTEER2_PREFERENCE = Format(
    "helpsteer2_preference",
    frozenset({"prompt", "response_1", "response_2", "preference_strength"}),
    read_helpsteer2_preference,
)
HELPSTEER3 = Format(
    "helpsteer3", frozenset({"context", "response1", "response2", "overall_preference"}), read_helpsteer3
)
