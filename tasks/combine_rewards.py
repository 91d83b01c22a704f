"""Combination: reads what several rewards gave to completions, writes one reward a completion. No model, no text.

Where there is one reward, and it counts as it is, its own table is the output.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.config.rewards import COMBINED
from tasks.pipeline.dry_run import pending
from tasks.pipeline.stage import stage
from tasks.rewards.candidates import Grid, as_maps
from tasks.rewards.scored import KEYS, read_scored
from tasks.rewards.stats import reward_stats
from tasks.rewards.table import part_of, rows_name
from tasks.selection.combination import NO_FITS, Columns, Combined, combine, fit
from tasks.selection.terms import Combination
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.slices import Slice, commit_slices, groups_of, read_slices


class Scored(NamedTuple):
    """Some prompts' completions with what each reward gave them."""

    drawn: pa.Table
    """Their ids and lengths, a row each."""
    places: tuple[np.ndarray, np.ndarray]
    """Where each row is in the (n, k) arrays."""
    columns: Columns
    """(n, k) rewards by name, and lengths."""


def _single(scored: Mapping[str, Artifact], combination: Combination) -> Artifact | None:
    """Return the rewards that need no combination; None where something is made of them."""
    return next(iter(scored.values())) if len(scored) == 1 and combination.as_it_is else None


def _preview(completions: Artifact) -> tuple[Artifact, dict[str, Any]]:
    return pending(completions.rows, "combine_rewards"), {}


@stage(version=1, preview=_preview, given=_single)
def combine_rewards(
    out: Draft, scored: dict[str, Artifact], completions: Artifact, combination: Combination
) -> Artifact:
    """Make one reward of several, as `pairs.rewards` says."""
    fits = fit(combination, whole_table(out.store, scored, completions)) if combination.is_fitted else NO_FITS
    table, slices, made = GrowingTable(out.store, "combined_rewards", out.provenance), list[Slice](), list[np.ndarray]()
    groups = groups_of(read_slices(out.store, completions))
    for group, part in zip(groups, read_each(out.store, scored, completions), strict=True):
        rows = combined_rows(part, combine(combination, part.columns, fits))
        is_part = len(group) == 1 and group[0].is_whole
        slices.append(Slice(table.append(part_of(group[0]) if is_part else rows_name(group[0], rows), rows)))
        made.append(rows["reward"].to_numpy())
    values = np.concatenate(made)
    told = combination.model_dump(mode="json")
    stats = {
        "combination": told,
        "fits": fits,
        "without": int(np.isnan(values).sum()),
        **reward_stats(values[~np.isnan(values)]),
    }
    return commit_slices(out, "combined_rewards", slices, stats)


def of_several(combined: Artifact) -> dict[str, Artifact]:
    """Return a table of combined rewards by name; nothing for the table of a reward that needed no combination."""
    return {COMBINED: combined} if combined.kind == "combined_rewards" else {}


def read_each(store: Store, scored: Mapping[str, Artifact], completions: Artifact) -> Iterator[Scored]:
    """Yield completions with what each reward gave them, all completions of a prompt at once.

    Raises:
        DamagedArtifactError: A reward has no table of just these completions.
    """
    tables = [read_scored(store, completions, own, [*KEYS, "num_tokens"]) for own in scored.values()]
    for parts in zip(*tables, strict=True):
        drawn = parts[0][0]
        grids = [Grid(drawn, own) for _, own in parts]
        rewards = {
            name: grid.fill(grid.scored, own["reward"].to_numpy(), np.nan)
            for name, grid, (_, own) in zip(scored, grids, parts, strict=True)
        }
        lengths = grids[0].fill(grids[0].drawn, drawn["num_tokens"].to_numpy(), 0)
        yield Scored(drawn, grids[0].drawn, Columns(rewards, lengths))


def combined_rows(part: Scored, found: Combined) -> pa.Table:
    """Return the rows of the table of combined rewards, in the order of the completions."""
    drawn, places = part.drawn, part.places

    def maps(values: Mapping[str, np.ndarray]) -> pa.Array:
        return as_maps({name: own[places] for name, own in values.items()}, drawn.num_rows)

    columns = {"reward": pa.array(found.reward[places].astype(np.float32)), "passes": found.passes[places]}
    columns |= {"rewards": maps(found.raw), "terms": maps(found.terms)}
    return pa.table({name: drawn[name] for name in KEYS} | columns)


def whole_table(store: Store, scored: Mapping[str, Artifact], completions: Artifact) -> Columns:
    """Return what each reward gave to all completions, an entry a completion."""
    parts = list(read_each(store, scored, completions))
    rewards = {name: np.concatenate([part.columns.rewards[name][part.places] for part in parts]) for name in scored}
    return Columns(rewards, np.concatenate([part.columns.lengths[part.places] for part in parts]))
