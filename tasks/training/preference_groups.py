"""Preferences of one prompt: its completions, each once, behind the tokens with which all of them begin.

What is forwarded is what is unique. The common beginning is found on the token ids, so that whatever the tokenizer
makes of the border between prompt and completion, each whole sequence is the one that would be forwarded by itself.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from tasks.config.errors import ConfigurationError

Ids = Sequence[int]
T = TypeVar("T", int, str)


class PreferenceGroup(NamedTuple):
    """Some pairs of a prompt."""

    prompt: Ids
    """Token ids with which all completions begin."""
    completions: Sequence[Ids]
    """Token ids of what follows in each completion, at least one."""
    chosen: Sequence[int]
    """Each pair's chosen completion."""
    rejected: Sequence[int]
    """Each pair's rejected completion."""
    margins: Sequence[float]
    """Each pair's margin; 0 where the loss reads none."""
    comparisons: int
    """Different pairs of the prompt, those that are in other groups included: a pair that stands twice weighs twice."""
    ranking: Sequence[int] = ()
    """Completions, the best first; empty where the loss reads none."""

    @property
    def pairs(self) -> int:
        """Return the number of pairs."""
        return len(self.chosen)

    def tokens(self, shared: bool) -> int:
        """Return the tokens to forward; where prompts are shared, each row begins with the last of the prompt's."""
        own, rows = len(self.prompt), len(self.completions)
        return sum(map(len, self.completions)) + (max(own - 1, 0) + rows * min(own, 1) if shared else own * rows)


def group_pairs(rows: Sequence[Mapping[str, Any]], ranked: bool = False) -> PreferenceGroup:
    """Return the preferences of one prompt as a group.

    Args:
        rows: `chosen_ids`, `rejected_ids` and, where margins are used, `margin`.
        ranked: They make a ranking, which is wanted.
    """
    place: dict[tuple[int, ...], int] = {}
    sides = [
        [place.setdefault(tuple(row[f"{side}_ids"]), len(place)) for row in rows] for side in ("chosen", "rejected")
    ]
    shared = common_beginning(place)
    return PreferenceGroup(
        prompt=next(iter(place))[:shared],
        completions=[ids[shared:] for ids in place],
        chosen=sides[0],
        rejected=sides[1],
        margins=[row.get("margin", 0.0) for row in rows],
        comparisons=len(set(zip(*sides, strict=True))),
        ranking=(total_order(list(zip(*sides, strict=True))) or ()) if ranked else (),
    )


def common_beginning(sequences: Collection[tuple[int, ...]]) -> int:
    """Return with how many equal tokens all sequences begin, at least one less than the shortest has."""
    first, last = min(sequences), max(sequences)  # in the order of words, so that all others lie between them
    most = min(map(len, sequences)) - 1
    return next((i for i in range(most) if first[i] != last[i]), most)


def halve_group(group: PreferenceGroup) -> list[PreferenceGroup]:
    """Cut a group between its pairs; a single pair and a ranking are never cut."""
    if group.pairs == 1 or group.ranking:
        return [group]
    middle = group.pairs // 2
    return [_some_pairs(group, own) for own in (slice(0, middle), slice(middle, None))]


def _some_pairs(group: PreferenceGroup, own: slice) -> PreferenceGroup:
    chosen, rejected = group.chosen[own], group.rejected[own]
    used = sorted({*chosen, *rejected})
    return group._replace(
        completions=[group.completions[i] for i in used],
        chosen=[used.index(i) for i in chosen],
        rejected=[used.index(i) for i in rejected],
        margins=group.margins[own],
    )


def total_order(pairs: Sequence[tuple[T, T]]) -> list[T] | None:
    """Return the one order, best first, that pairs leave; None where they contradict each other or leave several.

    Args:
        pairs: Better and worse completion of each.
    """
    worse: dict[T, set[T]] = {i: set() for pair in pairs for i in pair}
    for better, other in pairs:
        worse[better].add(other)
    order: list[T] = []
    while worse:
        best = worse.keys() - set().union(*worse.values())
        if len(best) != 1:  # none: a circle; several: nothing says which of them is better
            return None
        order += best
        del worse[order[-1]]
    return order


class Rankings:
    """Preferences of prompts whose pairs make a ranking; counts the pairs of the others as it goes."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        """Take tokenized preferences in the order of their prompts; none is asked for yet."""
        self.tables = tables
        self.kept = self.unranked = 0

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield the preferences that are left, in their order.

        Raises:
            ConfigurationError: None is; known once all are read.
        """
        for table in whole_prompts(self.tables):
            ranked: list[bool] = []
            for _, rows in itertools.groupby(table.to_pylist(), lambda row: row["prompt_id"]):
                own = list(rows)
                ranked += [bool(group_pairs(own, ranked=True).ranking)] * len(own)
            self.kept, self.unranked = self.kept + sum(ranked), self.unranked + len(ranked) - sum(ranked)
            if any(ranked):
                yield table.filter(pa.array(ranked))
        if not self.kept:
            raise ConfigurationError(
                f"none of {self.unranked} pairs belongs to a prompt whose pairs make a ranking, once those that are "
                "too long or held out are left out: take reward_model.loss k_comparisons, or raise max_length"
            )


def whole_prompts(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield rows that are in the order of their prompts in tables that end where a prompt ends."""
    rest: pa.Table | None = None
    for table in tables:
        joined = table if rest is None else pa.concat_tables([rest, table])
        ids = joined["prompt_id"].to_pylist()
        end = ids.index(ids[-1])
        if end:
            yield joined.slice(0, end)
        rest = joined.slice(end)
    if rest is not None:
        yield rest
