"""UltraFeedback as its authors share it (openbmb/UltraFeedback, arXiv:2310.01377): four completions with scores.

Grade: `overall_score` from 1 to 10, or `fine-grained_score`, the mean of four aspects, from 1 to 5. Margin: the
difference. The system message that a model was given to make completions differ is no part of the prompt.
"""

from collections.abc import Iterator

from tasks.data.columns import Values
from tasks.data.formats.rankings import Format, Graded, Ranking, asks, listed, number_in, says


def read_ultrafeedback(values: Values, dimension: str) -> Iterator[Ranking]:
    """Yield the completions of a row."""
    graded = [Graded(says(each.get("response")), number_in(each, dimension)) for each in listed(values, "completions")]
    yield Ranking(asks(values["instruction"], "instruction"), graded)


ULTRAFEEDBACK = Format(
    "ultrafeedback",
    frozenset({"instruction", "completions"}),
    read_ultrafeedback,
    dimensions=("overall_score", "fine-grained_score"),
    default="overall_score",
)
