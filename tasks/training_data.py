"""Demonstrations and preferences in: reads files, or the preferences that were added to the store.

Writes tables keyed by prompt_id, held-out prompts left out.

Every row that is left out is counted under a reason.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.config.settings import DataConfig
from tasks.data.added_preferences import read_added_preferences
from tasks.data.columns import Role
from tasks.data.conversations import BadRow
from tasks.data.loading import EXAMPLE_FIELDS, held_out_rule, instruct, laid_out
from tasks.data.records import Record, prompt_id
from tasks.data.tally import Tally, read_records
from tasks.models.demands import Reader, as_read_by
from tasks.pipeline.stage import stage
from tasks.store.artifacts import NOTHING, Artifact
from tasks.store.drafts import Draft, canonical_json


def _nothing_to_load(source: Artifact) -> Artifact | None:
    """Return `NOTHING` where the configuration names no data."""
    return NOTHING if source == NOTHING else None


@stage(version=3, retries=2, given=_nothing_to_load, reads={"data": EXAMPLE_FIELDS})
def load_demonstrations(
    out: Draft, source: Artifact, held_out: Artifact, base_model: Artifact, data: DataConfig
) -> Artifact:
    """Load the prompts and completions for supervised fine-tuning, held-out prompts left out."""
    assert data.demonstrations is not None
    policy = Reader("policy", base_model)
    records, tally = _open(data.demonstrations, source, "demonstrations", data)
    rows = _read_examples(records, "demonstrations", tally, policy, held_out_rule(held_out, data))
    return _commit_examples(out, "demonstrations", rows, tally)


@stage(version=3, retries=2, given=_nothing_to_load, reads={"data": EXAMPLE_FIELDS})
def load_preferences(
    out: Draft, source: Artifact, held_out: Artifact, reward_base: Artifact, data: DataConfig
) -> Artifact:
    """Load the preference pairs for the reward model, held-out prompts left out."""
    assert data.preferences is not None
    assert data.preferences != "gold"
    reward_model = Reader("reward model", reward_base)
    records, tally = _open(data.preferences, source, "preferences", data)
    rows = _read_examples(records, "preferences", tally, reward_model, held_out_rule(held_out, data))
    return _commit_examples(out, "preferences", rows, tally)


def _open(
    given: DataSource | Literal["added"], source: Artifact, role: Role, data: DataConfig
) -> tuple[Iterator[tuple[str, Record]], Tally]:
    """Return the records of the named data, or of the added ones, and their tally."""
    if given == "added":
        tally = Tally(f"data.{role} = added", data.max_bad_fraction)
        return instruct(read_added_preferences(source, tally), data), tally
    tally = Tally(given.path, data.max_bad_fraction)
    return instruct(read_records(given, role, tally), data), tally


def _commit_examples(out: Draft, role: Role, rows: Iterator[dict[str, Any]], tally: Tally) -> Artifact:
    """Commit the rows of a demonstrations or preferences table.

    Raises:
        ConfigurationError: Too many rows are bad, or no row is left.
    """
    with laid_out(out, role, rows) as table:
        if not table.rows:
            raise ConfigurationError(f"{tally.name} has no usable {role}: {tally.stats()}")
        return table.commit(tally.stats())


def _read_examples(
    records: Iterator[tuple[str, Record]],
    role: Role,
    tally: Tally,
    reader: Reader,
    leave_out: Callable[[str], str | None],
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a demonstrations or preferences table, each once; of those before, hashes alone are held.

    Raises:
        ConfigurationError: Too many rows are bad; known once all are read.
    """
    as_read = as_read_by([reader])
    seen: set[bytes] = set()
    for where, record in records:
        id_ = prompt_id(record.messages)
        if (why := leave_out(id_)) is not None:
            tally.left_out[why] += 1
            continue
        try:
            texts = _texts(as_read(record), role)
        except BadRow as error:
            tally.drop(error.reason, where)
            continue
        identity = _identity(id_, texts)
        if identity in seen:
            tally.left_out["duplicate"] += 1
            continue
        seen.add(identity)
        yield {"prompt_id": id_, "messages": record.messages, **texts}
    tally.check()


def _identity(id_: str, texts: dict[str, Any]) -> bytes:
    """Return a hash that is equal for equal rows; a margin of -0.0 is one of 0.0."""
    values = [value + 0.0 if isinstance(value, float) else value for value in texts.values()]
    return hashlib.sha256(canonical_json([id_, *values]).encode()).digest()


def _texts(record: Record, role: Role) -> dict[str, Any]:
    if role == "demonstrations":
        return {"completion": record.completion}
    return {"chosen": record.chosen, "rejected": record.rejected, "margin": record.margin}
