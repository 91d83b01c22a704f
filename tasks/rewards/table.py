"""The table of the rewards that a model gave, and which completions have theirs in it.

A part of rewards is named by the digest of the part of completions that it scores; where it does not score all of it, a
hash of the rows follows. So completions that were drawn anew are never given the rewards of others, and no text is read
to look rewards up.
"""

from collections import defaultdict
from typing import NamedTuple

import pyarrow as pa

from tasks.config.settings import ScoringConfig
from tasks.store.artifacts import Artifact
from tasks.store.cover import select_slices, slices_of
from tasks.store.drafts import keyed
from tasks.store.filesystem import in_parallel
from tasks.store.folders import AT_ONCE, Store
from tasks.store.growing import GrowingTable, Slice, completions_of, part_name

TABLE_VERSION = 4


def rewards_table(store: Store, reward_model: Artifact, scoring: ScoringConfig) -> GrowingTable:
    """Return the table that holds every reward that a model gave."""
    inputs, config = {"reward_model": reward_model.digest}, {"scoring": scoring.model_dump(mode="json")}
    return GrowingTable(store, "rewards", keyed("rewards", TABLE_VERSION, scoring.key_fields(), inputs, config))


class Found(NamedTuple):
    """The rewards of a slice of completions, as far as they are stored."""

    rewards: list[Slice]
    unscored: list[Slice]
    """The completions without a reward."""


def find_rewards(table: GrowingTable, completions: list[Slice]) -> list[Found]:
    """Look up the rewards of each slice of completions, by the parts that the completions are in."""
    names = defaultdict(list)
    for name in table.store.list(table.folder):
        names[scored_part(name)].append(name)
    return list(in_parallel(lambda own: _find(table, own, names.get(part_of(own), [])), completions, AT_ONCE))


def part_of(completions: Slice) -> str:
    """Return the name of the part of rewards that scores all of the part that a slice is of."""
    return completions.part.digest[:32]


def scored_part(name: str) -> str:
    """Return the name that a part of rewards would have if it scored all of its part of completions."""
    return name.partition("-")[0]


def unscored(store: Store, reward_model: Artifact, completions: list[Slice], scoring: ScoringConfig) -> list[Slice]:
    """Return the completions that the reward model has not scored, as slices."""
    found = find_rewards(rewards_table(store, reward_model, scoring), completions)
    return [slice_ for own in found for slice_ in own.unscored]


def count_unscored(store: Store, reward_model: Artifact, completions: list[Slice], scoring: ScoringConfig) -> int:
    """Return how many completions the reward model has not scored."""
    return sum(slice_.num_rows() for slice_ in unscored(store, reward_model, completions, scoring))


def rewards_part(completions: Slice, rows: pa.Table) -> str:
    """Return the name of the part that holds the rewards of a slice, whose rows are given."""
    if completions.is_whole:
        return part_of(completions)
    ids = zip(rows["prompt_id"].to_pylist(), rows["completion_id"].to_pylist(), strict=True)
    return f"{part_of(completions)}-{part_name([f'{prompt_id} {number}' for prompt_id, number in ids])[:16]}"


def _find(table: GrowingTable, completions: Slice, names: list[str]) -> Found:
    """Look up the rewards of a slice among the parts that score its part."""
    name = part_of(completions)
    if name in names and (part := table.find(name)) is not None:
        return Found([completions._replace(part=part, group=None)], [])
    parts = [part for other in names if other != name and (part := table.find(other)) is not None]
    if not parts:
        return Found([], [completions])
    selection = select_slices(parts, completions.completions())
    held = completions_of(completions.part)
    return Found(selection.slices(), slices_of(completions.part, held, selection.missing) if selection.missing else [])
