"""Completions and their rewards, read together and joined by (prompt_id, completion_id), a few parts in memory."""

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.rewards.table import part_of, scored_part
from tasks.store.artifacts import Artifact, DamagedArtifactError
from tasks.store.filesystem import in_parallel
from tasks.store.folders import Store
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import READ_AHEAD, Slice, groups_of, read_ahead, read_group, read_slices

KEYS = ["prompt_id", "completion_id"]


def read_scored(
    store: Store, completions: Artifact, rewards: Artifact, columns: list[str] | None = None
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield completions with their rewards, all completions of a prompt at once, the next tables already on their way.

    Args:
        store: Holds both.
        completions: What was scored.
        rewards: The rewards of these completions, cut into parts in the same way or in another.
        columns: Columns of the completions, the ids among them; None: all.

    Raises:
        DamagedArtifactError: There are rewards of other completions.
    """
    slices = read_slices(store, completions)
    lookup, found = RewardLookup(read_slices(store, rewards), slices), 0

    def read(group: list[Slice]) -> tuple[pa.Table, pa.Table]:
        return read_group(group, columns), lookup.near(group)

    for drawn, near in in_parallel(read, groups_of(slices), READ_AHEAD):
        own = near if near.select(KEYS) == drawn.select(KEYS) else lookup.find(drawn, near)
        found += own.num_rows
        yield drawn, own
    if found != rewards.rows:
        raise DamagedArtifactError(f"{rewards.rows - found} rewards have no completion: score the completions again")


class RewardLookup:
    """Finds the rewards of completions: first beside the completions' own parts, then anywhere."""

    def __init__(self, rewards: list[Slice], completions: list[Slice]) -> None:
        """Sort slices of rewards by the part of completions that they score.

        Args:
            rewards: All slices of rewards.
            completions: All slices of completions.
        """
        self._none = SCHEMAS[rewards[0].part.kind if rewards else "rewards"].empty_table()
        names, scored = {part_of(own) for own in completions}, [scored_part(_name(own)) for own in rewards]
        self._by_part: dict[str, list[Slice]] = defaultdict(list)
        for name, own in zip(scored, rewards, strict=True):
            self._by_part[name].append(own)
        lost = [own for name, own in zip(scored, rewards, strict=True) if name not in names]
        self._elsewhere = [ByPrompt(lost), ByPrompt(rewards)]
        """Where to look for rewards of completions that were drawn again: first rewards of parts that are gone."""

    def near(self, group: list[Slice]) -> pa.Table:
        """Return the rewards of a group's parts: as a rule the rewards of the group's completions, in order."""
        names = dict.fromkeys(map(part_of, group))
        return self._concat([slice_.read() for name in names for slice_ in self._by_part.get(name, [])])

    def find(self, drawn: pa.Table, near: pa.Table) -> pa.Table:
        """Return the rewards of completions, wherever they are stored; a completion without a reward is left out.

        Args:
            drawn: The completions.
            near: What `near` returned: the rewards to look at first.
        """
        found, missing = match(drawn, near)
        for others in self._elsewhere:
            if missing:
                found, missing = match(drawn, self._concat([found, *others.read(missing)]))
        return found

    def _concat(self, tables: list[pa.Table]) -> pa.Table:
        return pa.concat_tables([self._none, *tables])


class ByPrompt:
    """Slices by the prompts that they have rows of; the prompts are read when they are first asked for."""

    def __init__(self, slices: list[Slice]) -> None:
        """Take the slices; nothing is read yet."""
        self.slices = slices

    def read(self, prompt_ids: list[str]) -> list[pa.Table]:
        """Return the slices that have one of the prompts."""
        places = {place for prompt_id in prompt_ids for place in self._places.get(prompt_id, [])}
        return [self.slices[place].read() for place in sorted(places)]

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        found = defaultdict(list)
        for place, table in enumerate(read_ahead(self.slices, ["prompt_id"])):
            for prompt_id in table["prompt_id"].unique().to_pylist():
                found[prompt_id].append(place)
        return found


def match(drawn: pa.Table, rewards: pa.Table) -> tuple[pa.Table, list[str]]:
    """Return the rewards of completions, each once, and the prompts with a completion that has no reward.

    Args:
        drawn: Completions: their `prompt_id` and `completion_id`.
        rewards: Rewards of these and of other completions, the same one perhaps twice.
    """
    prompt_ids = drawn["prompt_id"].unique()
    width = 1 + max((int(np.max(table["completion_id"])) for table in (drawn, rewards) if table.num_rows), default=0)

    def numbers(table: pa.Table) -> np.ndarray:  # one for each prompt and completion; -1 for other prompts
        places = pc.fill_null(pc.index_in(table["prompt_id"], prompt_ids), -1).to_numpy().astype(np.int64)
        return np.where(places < 0, -1, places * width + table["completion_id"].to_numpy())

    wanted, given = numbers(drawn), numbers(rewards)
    kinds, first = np.unique(given, return_index=True)
    kept = rewards.take(pa.array(np.sort(first[np.isin(kinds, wanted)])))
    missing = np.unique(wanted[~np.isin(wanted, given)] // width)
    return kept, prompt_ids.take(pa.array(missing)).to_pylist()


def _name(slice_: Slice) -> str:
    return slice_.part.uri.rpartition("/")[2]
