"""Nectar (berkeley-nest/Nectar): seven answers to a conversation, ranked from 1, the best.

Grade: the rank from behind. Margin: places between two answers.
"""

from collections.abc import Iterator

from tasks.data.columns import Values
from tasks.data.formats.rankings import Format, Graded, Ranking, listed, number_in, says


def read_nectar(values: Values, dimension: str) -> Iterator[Ranking]:
    """Yield the answers of a row; the prompt is a transcript as HH has it."""
    graded = [Graded(says(each.get("answer")), -number_in(each, "rank")) for each in listed(values, "answers")]
    yield Ranking({"prompt": values["prompt"]}, graded)


NECTAR = Format("nectar", frozenset({"prompt", "answers"}), read_nectar)
