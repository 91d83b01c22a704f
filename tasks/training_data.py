"""Demonstrations and preferences in: reads files, or the preferences that were added to the store.

Writes tables keyed by prompt_id, held-out prompts left out.

Every row that is left out is counted under a reason.
"""

import hashlib
from collections.abc import Iterator
from itertools import chain
from typing import Any

from tasks.config.data import DataConfig
from tasks.config.errors import ConfigurationError
from tasks.data.added_preferences import read_added_preferences
from tasks.data.columns import Role
from tasks.data.conversations import BadRow
from tasks.data.formats.comparisons import read_preferences
from tasks.data.loading import (
    EXAMPLE_FIELDS,
    PREFERENCE_FIELDS,
    LeaveOut,
    held_out_rule,
    instruct,
    laid_out,
)
from tasks.data.mixing import Mixed, Opinion, distinct_pairs, majority, source_stats
from tasks.data.records import Record, prompt_id
from tasks.data.tally import Tally, read_records
from tasks.models.demands import AsRead, Reader, as_read_by
from tasks.pipeline.pages import markdown_table, stats_lines
from tasks.pipeline.stage import stage
from tasks.store.artifacts import NOTHING, Artifact
from tasks.store.drafts import Draft, canonical_json

Records = Iterator[tuple[str, Record]]


def _nothing_to_load(source: Artifact) -> Artifact | None:
    """Return `NOTHING` where the configuration names no data."""
    return NOTHING if source == NOTHING else None


@stage(version=3, retries=2, given=_nothing_to_load, reads={"data": EXAMPLE_FIELDS})
def load_demonstrations(
    out: Draft, source: Artifact, held_out: Artifact, base_model: Artifact, data: DataConfig
) -> Artifact:
    """Load the prompts and completions for supervised fine-tuning, held-out prompts left out."""
    assert data.demonstrations is not None
    tally = Tally(data.demonstrations.path, data.max_bad_fraction)
    records = instruct(read_records(data.demonstrations, "demonstrations", tally), data)
    as_read = as_read_by([Reader("policy", base_model, reads_answers=False)])
    rows = _demonstrations(_usable(records, tally, as_read, held_out_rule(held_out, data)), tally)
    return _commit_examples(out, "demonstrations", rows, [Mixed(1.0, tally)])


def _page(artifact: Artifact) -> list[str]:
    """Return the counts, and a table of each source's own."""
    stats = dict(artifact.stats)
    tables = [
        markdown_table((name, "count"), ((what, str(value)) for what, value in counts.items()))
        for name, counts in stats.pop("sources", {}).items()
    ]
    return [*stats_lines(artifact.model_copy(update={"stats": stats})), *chain.from_iterable(tables)]


@stage(version=3, retries=2, given=_nothing_to_load, reads={"data": PREFERENCE_FIELDS}, page=_page)
def load_preferences(
    out: Draft, source: Artifact, held_out: Artifact, reward_base: Artifact, data: DataConfig
) -> Artifact:
    """Load the preference pairs for the reward model, held-out prompts left out."""
    as_read, leave_out = as_read_by([Reader("reward model", reward_base)]), held_out_rule(held_out, data)
    opened = list(_open_preferences(source, data))
    opinions = chain.from_iterable(
        (Opinion(mixed, *usable) for usable in _usable(instruct(records, data), mixed.tally, as_read, leave_out))
        for mixed, records in opened
    )
    rows = distinct_pairs(majority(opinions) if data.consensus == "majority" else opinions)
    return _commit_examples(out, "preferences", rows, [mixed for mixed, _ in opened])


def _open_preferences(source: Artifact, data: DataConfig) -> Iterator[tuple[Mixed, Records]]:
    """Yield the sources of preferences, each with its records."""
    if data.preferences == "added":
        tally = Tally("data.preferences = added", data.max_bad_fraction)
        yield Mixed(1.0, tally), read_added_preferences(source, tally)
    for given in data.preference_sources:
        tally = Tally(given.label or given.path, data.max_bad_fraction)
        yield Mixed(given.weight, tally), read_preferences(given, tally)


def _commit_examples(out: Draft, role: Role, rows: Iterator[dict[str, Any]], sources: list[Mixed]) -> Artifact:
    """Commit the rows of a demonstrations or preferences table.

    Raises:
        ConfigurationError: Too many rows are bad, or no row is left.
    """
    with laid_out(out, role, rows) as table:
        stats = sources[0].tally.stats() if len(sources) == 1 else source_stats(sources)
        if not table.rows:
            names = ", ".join(source.tally.name for source in sources)
            raise ConfigurationError(f"{names} has no usable {role}: {stats}")
        return table.commit(stats)


def _usable(records: Records, tally: Tally, as_read: AsRead, leave_out: LeaveOut) -> Iterator[tuple[str, Record]]:
    """Yield prompt_id and content of the rows that may be trained on and that the model can read; count the others.

    Raises:
        ConfigurationError: Too many rows are bad; known once all are read.
    """
    for where, record in records:
        id_ = prompt_id(record.messages)
        if (why := leave_out(id_, where, record.messages)) is not None:
            tally.left_out[why] += 1
            continue
        try:
            yield id_, as_read(record)
        except BadRow as error:
            tally.drop(error.reason, where)
    tally.check()


def _demonstrations(usable: Iterator[tuple[str, Record]], tally: Tally) -> Iterator[dict[str, Any]]:
    """Yield the rows of a demonstrations table, each once; of those before, hashes alone are held."""
    seen: set[bytes] = set()
    for id_, record in usable:
        identity = hashlib.sha256(canonical_json([id_, record.completion]).encode()).digest()
        if identity in seen:
            tally.left_out["duplicate"] += 1
            continue
        seen.add(identity)
        yield {"prompt_id": id_, "messages": record.messages, "completion": record.completion}
