"""WebGPT's comparisons (openai/webgpt_comparisons, arXiv:2112.09332): two answers, scores that add up to 0.

Grade: the score, from -1 to 1. Margin: from above 0 to 2. What the answers quote is not read.
"""

from collections.abc import Iterator

from tasks.data.columns import Values
from tasks.data.conversations import BadRow
from tasks.data.formats.rankings import Format, Graded, Ranking, asks, number_in, says


def read_webgpt(values: Values, dimension: str) -> Iterator[Ranking]:
    """Yield the two answers of a row."""
    question = values["question"]
    if not isinstance(question, dict):
        raise BadRow("question is no object with full_text")
    answers = [Graded(says(values[f"answer_{side}"]), number_in(values, f"score_{side}")) for side in (0, 1)]
    yield Ranking(asks(question.get("full_text"), "full_text"), answers)


WEBGPT = Format("webgpt", frozenset({"question", "answer_0", "answer_1", "score_0", "score_1"}), read_webgpt)
