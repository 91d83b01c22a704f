"""OASST's trees of messages (arXiv:2304.07327): a row is a conversation that branches, with ranked replies.

Grade: the rank from behind, 0 the best. Margin: places between two replies. Replies without a rank are in no pair, nor
is what hangs below a message that was deleted.
"""

from collections.abc import Iterator
from typing import Any

from tasks.data.columns import Values
from tasks.data.conversations import BadRow
from tasks.data.formats.rankings import Format, Graded, Ranking, listed, number_in, says

_ROLES = {"prompter": "user", "assistant": "assistant"}


def read_oasst(values: Values, dimension: str) -> Iterator[Ranking]:
    """Yield the ranked replies to each message of the tree's prompter."""
    if not isinstance(values["prompt"], dict):
        raise BadRow("prompt is no tree of messages")
    yield from _below(values["prompt"], [])


def _below(message: Values, before: list[dict[str, Any]]) -> Iterator[Ranking]:
    if message.get("deleted"):
        return
    if message.get("role") not in _ROLES:
        raise BadRow("unknown role")
    said = [*before, {"role": _ROLES[message["role"]], "content": message.get("text")}]
    replies = listed(message, "replies") if message.get("replies") is not None else []
    ranked = [each for each in replies if each.get("rank") is not None and not each.get("deleted")]
    if message["role"] == "prompter" and ranked:
        yield Ranking({"prompt": said}, [Graded(says(each.get("text")), -number_in(each, "rank")) for each in ranked])
    for reply in replies:
        yield from _below(reply, said)


OASST = Format("oasst", frozenset({"message_tree_id", "prompt"}), read_oasst, also_reads=frozenset({"tree_state"}))
