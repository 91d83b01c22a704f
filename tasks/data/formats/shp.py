"""Stanford's SHP and SHP-2 (arXiv:2110.08420): two comments on a post, by the votes of readers.

Grade: the logarithm of the votes. Margin: log(votes of chosen / votes of rejected), since votes grow with how many read
a post: 40 to 20 is as strong as 4 to 2.
"""

import math
from collections.abc import Iterator

from tasks.data.columns import Values
from tasks.data.conversations import BadRow
from tasks.data.formats.rankings import Format, Graded, Ranking, asks, number_in, says, side_in


def read_shp(values: Values, dimension: str) -> Iterator[Ranking]:
    """Yield the two comments of a row; `labels` is 1 where A is preferred."""
    votes = {side: number_in(values, f"score_{side}") for side in "AB"}
    if min(votes.values()) <= 0:
        raise BadRow("score is not positive")
    chosen, rejected = "AB" if side_in(values, "labels") else "BA"
    if votes[chosen] < votes[rejected]:
        raise BadRow("labels and scores say the opposite")
    comments = [Graded(says(values[f"human_ref_{side}"]), math.log(votes[side])) for side in "AB"]
    yield Ranking(asks(values["history"], "history"), comments)


_COLUMNS = frozenset({"history", "human_ref_A", "human_ref_B", "labels", "score_A", "score_B"})
SHP = Format("shp", _COLUMNS, read_shp)
