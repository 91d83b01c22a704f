"""The table of the rewards that one maker gave, and which completions have theirs in it.

A part of rewards is named by the digest of the part of completions that it scores; where it does not score all of it, a
hash of the rows follows. So completions that were drawn anew are never given the rewards of others, and no text is read
to look rewards up.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

from tasks.config.rewards import CALLED
from tasks.config.settings import ScoringConfig
from tasks.store.artifacts import Artifact
from tasks.store.cover import select_slices, slices_of
from tasks.store.drafts import keyed
from tasks.store.filesystem import in_parallel
from tasks.store.folders import AT_ONCE, Store
from tasks.store.growing import MERGED, GrowingTable, Parts, held_by, part_name
from tasks.store.manifests import reference
from tasks.store.slices import Slice, completions_of, read_ahead

TABLE_VERSION = 4
NAME = 32
"""Digits of the digest that name a part."""


def rewards_table(store: Store, reward: Artifact, scoring: ScoringConfig) -> GrowingTable:
    """Return the table that holds every reward that a model, a function or a judge gave; only models read `scoring`."""
    if reward.kind in CALLED:
        return GrowingTable(store, "rewards", keyed("rewards", TABLE_VERSION, {}, {reward.kind: reward.digest}, {}))
    inputs, config = {"reward_model": reward.digest}, {"scoring": scoring.model_dump(mode="json")}
    return GrowingTable(store, "rewards", keyed("rewards", TABLE_VERSION, scoring.key_fields(), inputs, config))


class Found(NamedTuple):
    """The rewards of a slice of completions, as far as they are stored."""

    completions: Slice
    rewards: list[Slice]
    unscored: list[Slice]
    """The completions without a reward."""


def find_rewards(table: GrowingTable, completions: list[Slice]) -> list[Found]:
    """Look up the rewards of each slice of completions, by the parts that the completions are in."""
    parts, names = table.look(), defaultdict(list)
    for name in parts.sizes:
        names[scored_part(name)].append(name)
    return list(in_parallel(lambda own: _find(parts, own, names.get(part_of(own), [])), completions, AT_ONCE))


def merge_rewards(table: GrowingTable, found: Iterable[Found]) -> list[Found]:
    """Return what was found, the rewards of merged completions merged into a part too, as their own name asks for.

    Raises:
        StoreError: A part could not be written.
    """
    return [_merge(table, own) if len(own.rewards) > 1 and _is_all_scored(own) else own for own in found]


def _is_all_scored(found: Found) -> bool:
    return found.completions.is_whole and not found.unscored


def _merge(table: GrowingTable, found: Found) -> Found:
    rows = pa.concat_tables(read_ahead(found.rewards))
    return found._replace(rewards=[Slice(table.append(part_of(found.completions), rows))])


def part_of(completions: Slice) -> str:
    """Return the name of the part of rewards that scores all of the part that a slice is of."""
    return completions.part.digest[:NAME]


def scored_part(name: str) -> str:
    """Return the name that a part of rewards would have if it scored all of its part of completions."""
    return name.partition("-")[0]


def unscored(store: Store, reward: Artifact, completions: list[Slice], scoring: ScoringConfig) -> list[Slice]:
    """Return the completions that have no reward yet, as slices."""
    found = find_rewards(rewards_table(store, reward, scoring), completions)
    return [slice_ for own in found for slice_ in own.unscored]


def count_unscored(store: Store, reward: Artifact, completions: list[Slice], scoring: ScoringConfig) -> int:
    """Return how many completions have no reward yet."""
    return sum(slice_.num_rows() for slice_ in unscored(store, reward, completions, scoring))


def rewards_part(completions: Slice, rows: pa.Table) -> str:
    """Return the name of the part that holds the rewards of a slice, whose rows are given."""
    return part_of(completions) if completions.is_whole else rows_name(completions, rows)


def rows_name(completions: Slice, rows: pa.Table) -> str:
    """Return the name of a part that holds rewards of some rows, which begin in the part of a slice."""
    ids = zip(rows["prompt_id"].to_pylist(), rows["completion_id"].to_pylist(), strict=True)
    return f"{part_of(completions)}-{part_name([f'{prompt_id} {number}' for prompt_id, number in ids])[:16]}"


def _scores_of_merged(completions: Slice) -> list[str]:
    """Return the names of the parts that score what a part of completions was merged of, and holds as it was."""
    if MERGED not in completions.part.uri:
        return []
    merged = reference(completions.part.uri)
    return [digest[:NAME] for digest in held_by(merged).values()]


def _find(parts: Parts, completions: Slice, names: list[str]) -> Found:
    """Look up the rewards of a slice among the parts that score its part."""
    name = part_of(completions)
    if name in names and (part := parts.find(name)) is not None:
        return Found(completions, [completions._replace(part=part, group=None)], [])
    others = [other for other in (*names, *_scores_of_merged(completions)) if other != name]
    some = [part for other in others if (part := parts.find(other)) is not None]
    if not some:
        return Found(completions, [], [completions])
    selection = select_slices(some, completions.completions())
    held = completions_of(completions.part)
    rest = slices_of(completions.part, held, selection.missing) if selection.missing else []
    return Found(completions, selection.slices(), rest)
