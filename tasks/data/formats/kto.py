"""KTO's labels (arXiv:2402.01306): a completion a row, liked or not. Each liked one of a prompt beats each other one.

Two that are both liked, or both not, are a tie. There is no margin.
"""

from collections.abc import Iterator

from tasks.data.columns import Values
from tasks.data.conversations import BadRow
from tasks.data.formats.rankings import Format, Graded, Ranking


def read_kto(values: Values, dimension: str) -> Iterator[Ranking]:
    """Yield the completion of a row."""
    if not isinstance(values["prompt"], str | list):
        raise BadRow("prompt is no conversation")
    if values["label"] not in (True, False):
        raise BadRow("label is neither true nor false")
    yield Ranking({"prompt": values["prompt"]}, [Graded(values["completion"], float(values["label"]))])


KTO = Format("kto", frozenset({"prompt", "completion", "label"}), read_kto, has_margin=False, is_spread=True)
