"""PKU-SafeRLHF (arXiv:2406.15513): two responses, of which one is the better and one the safer.

The two may differ, so a source names the one that counts: `better` (more helpful) or `safer`. There is no margin.
"""

from collections.abc import Iterator

from tasks.data.columns import Values
from tasks.data.formats.rankings import Format, Graded, Ranking, asks, says, side_in

_PREFERRED = ("better", "safer")


def read_saferlhf(values: Values, dimension: str) -> Iterator[Ranking]:
    """Yield the two responses of a row."""
    preferred = side_in(values, f"{dimension}_response_id")
    responses = [Graded(says(values[f"response_{side}"]), float(side == preferred)) for side in (0, 1)]
    yield Ranking(asks(values["prompt"], "prompt"), responses)


SAFERLHF = Format(
    "saferlhf",
    frozenset({"prompt", "response_0", "response_1"}),
    read_saferlhf,
    dimensions=_PREFERRED,
    has_margin=False,
    also_reads=frozenset(f"{name}_response_id" for name in _PREFERRED),
)
