"""How the rows of a set of pairs are written: each format is a function from a row to a pair as preferences have it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tasks.data.columns import Values
from tasks.data.conversations import BadRow


class Format(NamedTuple):
    """A way to write pairs."""

    columns: tuple[str, ...]
    """Columns that every row must have; none where `tasks.data` says what would do."""
    as_preference: Callable[[Values], Mapping[str, Any]]
    """Returns a row as preferences are written."""
    category: str | None = None
    """Column that tells categories apart."""


def _as_it_is(values: Values) -> Values:
    return values


def _from_llmbar(values: Values) -> Mapping[str, Any]:
    """Return LLMBar's (arXiv:2310.07641) row: two outputs for an input, and the number of the better one."""
    outputs, label = {1: values.get("output_1"), 2: values.get("output_2")}, values.get("label")
    if isinstance(label, bool) or label not in (1, 2):
        raise BadRow("label is neither 1 nor 2")
    return {"prompt": values.get("input"), "chosen": outputs[label], "rejected": outputs[3 - label]}


FORMATS = {
    "pairs": Format((), _as_it_is),
    "rewardbench": Format(("prompt", "chosen", "rejected", "subset"), _as_it_is, "subset"),
    "llmbar": Format(("input", "output_1", "output_2", "label"), _from_llmbar),
}
"""`pairs.<name>.format` -> how its rows are read."""
