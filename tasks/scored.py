"""Completions and their rewards, read together and joined by (prompt_id, completion_id), a few parts in memory."""

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.artifacts import Artifact
from tasks.errors import ConfigurationError
from tasks.filesystem import in_parallel
from tasks.schemas import SCHEMAS
from tasks.score import part_of, scored_part
from tasks.storage import Store
from tasks.tables import READ_AHEAD, Slice, groups_of, read_ahead, read_group, read_slices

KEYS = ["prompt_id", "completion_id"]


def read_scored(
    store: Store, completions: Artifact, rewards: Artifact, columns: list[str] | None = None
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield completions with their rewards, all that a prompt has at once; the next ones are already on their way.

    Args:
        store: Holds both.
        completions: What was scored.
        rewards: Their rewards, cut into parts in the same way or in another.
        columns: Columns of the completions, the ids among them; None: all.

    Raises:
        ConfigurationError: There are rewards of other completions.
    """
    scores, found = Scores(read_slices(store, rewards)), 0

    def read(group: list[Slice]) -> tuple[pa.Table, pa.Table]:
        return read_group(group, columns), scores.near(group)

    for drawn, near in in_parallel(read, groups_of(read_slices(store, completions)), READ_AHEAD):
        own = near if near.select(KEYS) == drawn.select(KEYS) else scores.of(drawn, near)
        found += own.num_rows
        yield drawn, own
    if found != rewards.rows:
        raise ConfigurationError(f"{rewards.rows - found} rewards have no completion: score the completions again")


class Scores:
    """The rewards of a stage."""

    def __init__(self, slices: list[Slice]) -> None:
        """Sort slices by the part of completions that they score."""
        self.slices = slices
        self._scoring: dict[str, list[Slice]] = defaultdict(list)
        for slice_ in slices:
            self._scoring[scored_part(slice_.part.uri.rpartition("/")[2])].append(slice_)

    def near(self, group: list[Slice]) -> pa.Table:
        """Return the rewards that were given to the parts of a group: as a rule those of its completions, in order."""
        names = dict.fromkeys(map(part_of, group))
        return _concat([slice_.read() for name in names for slice_ in self._scoring.get(name, [])])

    def of(self, drawn: pa.Table, near: pa.Table) -> pa.Table:
        """Return the rewards of completions, wherever they are; those that are nowhere are left out.

        Args:
            drawn: The completions.
            near: Rewards among which most may be.
        """
        found, lacking = match(drawn, near)
        if not lacking:
            return found
        places = {place for prompt_id in lacking for place in self._with_prompt.get(prompt_id, [])}
        return match(drawn, _concat([near, *(self.slices[place].read() for place in sorted(places))]))[0]

    @cached_property
    def _with_prompt(self) -> dict[str, list[int]]:
        """Return which slices have rewards of a prompt, by prompt: needed where completions were drawn anew."""
        found = defaultdict(list)
        for place, table in enumerate(read_ahead(self.slices, ["prompt_id"])):
            for prompt_id in table["prompt_id"].unique().to_pylist():
                found[prompt_id].append(place)
        return found


def match(drawn: pa.Table, rewards: pa.Table) -> tuple[pa.Table, list[str]]:
    """Return the rewards of completions, each once, and the prompts with a completion that has none among them."""
    prompt_ids = drawn["prompt_id"].unique()
    width = 1 + max((int(np.max(table["completion_id"])) for table in (drawn, rewards) if table.num_rows), default=0)

    def numbers(table: pa.Table) -> np.ndarray:
        places = pc.fill_null(pc.index_in(table["prompt_id"], prompt_ids), -1).to_numpy().astype(np.int64)
        return np.where(places < 0, -1, places * width + table["completion_id"].to_numpy())

    wanted, given = numbers(drawn), numbers(rewards)
    kinds, first = np.unique(given, return_index=True)
    kept = rewards.take(pa.array(np.sort(first[np.isin(kinds, wanted)])))
    lacking = np.unique(wanted[~np.isin(wanted, given)] // width)
    return kept, prompt_ids.take(pa.array(lacking)).to_pylist()


def _concat(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables([SCHEMAS["rewards"].empty_table(), *tables])
