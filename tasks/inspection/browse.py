"""One prompt of a run as a person reads it: the conversation, its completions with rewards, and its pairs."""

import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.config.errors import ConfigurationError
from tasks.data.prompt_table import PromptTable
from tasks.inspection.catalog import Catalog, Entry
from tasks.rewards.table import part_of, scored_part
from tasks.store.filesystem import in_parallel
from tasks.store.folders import Store
from tasks.store.parquet import read_tables
from tasks.store.runs import Run
from tasks.store.slices import Slice, groups_of, read_ahead, read_group, read_slices

READERS = 8
MADE_BY = {
    "prompts": ("load_prompts",),
    "completions": ("sample_completions", "load_annotations"),
    "rewards": ("combine_rewards", "score_completions"),
    "pairs": ("build_pairs",),
}
"""Artifact of a run -> the stages that make it."""
LOST = "(the completion cannot be read: run the pipeline again)"


def find_run(runs: list[Run], prefix: str | None) -> Run:
    """Return the run whose id begins so; the newest where nothing is asked for.

    Raises:
        ConfigurationError: There is none, or several.
    """
    fits = [run for run in runs if run.id.startswith(prefix)] if prefix else runs[-1:]
    if not fits:
        raise ConfigurationError(
            f"no run begins with {prefix!r}: list the store" if prefix else "the store has no runs"
        )
    if len(fits) > 1:
        raise ConfigurationError(
            f"{len(fits)} runs begin with {prefix!r}; give more of: {', '.join(run.id for run in fits)}"
        )
    return fits[0]


def show_prompt(store: Store, catalog: Catalog, run: Run, prefix: str) -> dict[str, Any]:
    """Return everything that a run has for one prompt.

    Args:
        store: Where the run wrote.
        catalog: What is in it.
        run: The run.
        prefix: How the prompt_id begins.

    Returns:
        `run`, `prompt_id`, `messages`, `drawn_by`, `scored_by`, `completions` (in order, each with `reward`) and
        `pairs` (the widest reward gap first, each with both texts). What the run has not made yet is empty.

    Raises:
        ConfigurationError: The run has no prompts yet, or the prefix fits none or several of them.
    """
    found = {name: entry for name in MADE_BY if (entry := entry_of_run(catalog, run, name)) is not None}
    if "prompts" not in found:
        raise ConfigurationError(f"run {run.id} has no prompts in the store: choose another with --run")
    prompts = PromptTable(found["prompts"].artifact(store))
    prompt_id = _full_prompt_id(prompts.ids, prefix, run)
    completions, drawn = _completions(store, found.get("completions"), prompt_id)
    rewards = _rewards(store, found.get("rewards"), prompt_id, drawn)
    part = store.folder_of(drawn[0].part) if drawn else ""
    for row in completions:
        row["reward"] = rewards.get(row["completion_id"])
    return {
        "run": run.id,
        "prompt_id": prompt_id,
        "messages": prompts[prompt_id],
        "drawn_by": _made_by(catalog, found.get("completions"), "policy", part),
        "scored_by": _made_by(catalog, found.get("rewards"), "reward_model", ""),
        "completions": completions,
        "pairs": _pairs(store, found.get("pairs"), prompt_id, completions),
    }


def entry_of_run(catalog: Catalog, run: Run, name: str) -> Entry | None:
    """Return an artifact of a run by name; for a run that has not finished, what its stages have left so far."""
    noted = [folder for folder in reversed(run.stages) if folder.partition("/")[0] in MADE_BY[name]]
    folders = [run.artifacts[name]] if name in run.artifacts else noted
    entries = [entry for folder in folders if (entry := catalog.entries.get(folder)) and entry.manifest]
    return entries[0] if entries else None


def _full_prompt_id(ids: list[str], prefix: str, run: Run) -> str:
    fits = [prompt_id for prompt_id in ids if prompt_id.startswith(prefix)]
    if not fits:
        raise ConfigurationError(
            f"no prompt of run {run.id} has an id that begins with {prefix!r} ({len(ids)} prompts)"
        )
    if len(fits) > 1:
        raise ConfigurationError(f"{len(fits)} prompts begin with {prefix!r}; give more of: {', '.join(fits[:5])}")
    return fits[0]


def _completions(store: Store, entry: Entry | None, prompt_id: str) -> tuple[list[dict[str, Any]], list[Slice]]:
    """Return the prompt's completions in order, and the slices that have them."""
    if entry is None:
        return [], []
    groups = groups_of(own for own in read_slices(store, entry.artifact(store)) if _may_have(own, prompt_id))
    tables = in_parallel(lambda group: _rows_of_prompt(read_group(group), prompt_id), groups, READERS)
    for group, rows in zip(groups, tables, strict=False):
        if rows.num_rows:
            columns = ["completion_id", "completion", "num_tokens", "finish_reason"]
            return rows.select(columns).sort_by("completion_id").to_pylist(), group
    return [], []


def _rewards(store: Store, entry: Entry | None, prompt_id: str, drawn: list[Slice]) -> dict[int, float]:
    """Return the rewards by completion_id: from the parts that score the completions' parts, else from all parts."""
    if entry is None:
        return {}
    slices = [own for own in read_slices(store, entry.artifact(store)) if _may_have(own, prompt_id)]
    names = set(map(part_of, drawn))
    near = [own for own in slices if scored_part(own.part.uri.rpartition("/")[2]) in names]
    for some in (near, slices):
        rows = [_rows_of_prompt(table, prompt_id) for table in read_ahead(some)]
        if any(table.num_rows for table in rows):
            found = pa.concat_tables(rows)
            pairs = zip(found["completion_id"].to_pylist(), found["reward"].to_pylist(), strict=True)
            return {number: reward for number, reward in pairs if not math.isnan(reward)}
    return {}


def _pairs(
    store: Store, entry: Entry | None, prompt_id: str, completions: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    if entry is None:
        return []
    texts = {row["completion_id"]: row["completion"] for row in completions}
    rows = [
        row for table in read_tables(entry.artifact(store)) for row in _rows_of_prompt(table, prompt_id).to_pylist()
    ]
    pairs = [{**row, **{side: texts.get(row[f"{side}_id"], LOST) for side in ("chosen", "rejected")}} for row in rows]
    return sorted(pairs, key=lambda row: (-row["reward_gap"], row["chosen_id"], row["rejected_id"]))


def _made_by(catalog: Catalog, entry: Entry | None, role: str, part: str) -> str:
    """Return the stage and the model behind some rows, and the engine that a part says it was drawn with."""
    if entry is None or entry.manifest is None:
        return ""
    inputs, stage = entry.manifest.provenance.inputs, entry.manifest.provenance.stage
    if role not in inputs:  # made of several
        return f"{stage} of {', '.join(sorted(inputs))}"
    digest = inputs[role]
    model = [source.folder for source in catalog.with_digest(digest)][-1:]
    drawn = catalog.entries.get(part)
    engine = drawn.manifest.stats.get("engine", "") if drawn and drawn.manifest else ""
    return " ".join(filter(None, (stage, "with", role, *model, f"digest {digest}", engine and f"({engine})")))


def _may_have(slice_: Slice, prompt_id: str) -> bool:
    return slice_.prompt_ids is None or prompt_id in slice_.prompt_ids


def _rows_of_prompt(table: pa.Table, prompt_id: str) -> pa.Table:
    return table.filter(pc.equal(table["prompt_id"], prompt_id))
