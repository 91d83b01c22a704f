"""Chosen and rejected with a score each, such as HuggingFaceH4/ultrafeedback_binarized.

Such rows are read as plain pairs unless a source names this form. Margin: the difference of the scores.
"""

from collections.abc import Iterator

from tasks.data.columns import READ, SCORES, Values, check_scores
from tasks.data.conversations import BadRow
from tasks.data.formats.rankings import Format, Graded, Ranking, number_in


def read_scored_pairs(values: Values, dimension: str) -> Iterator[Ranking]:
    """Yield the two sides of a row."""
    check_scores(values)
    scores = next((names for names in SCORES if values.get(names[0]) is not None), None)
    if scores is None:
        raise BadRow("missing score_chosen")
    sides = ("chosen", "rejected")
    asked = {name: value for name, value in values.items() if name not in (*sides, *scores, "margin")}
    yield Ranking(
        asked, [Graded(values[side], number_in(values, score)) for side, score in zip(sides, scores, strict=True)]
    )


SCORED_PAIRS = Format(
    "scored_pairs",
    frozenset({"chosen", "rejected"}),
    read_scored_pairs,
    is_told=False,
    also_reads=frozenset(READ["preferences"]),
)
