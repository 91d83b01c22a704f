"""Demonstrations and preferences in: reads files, or the preferences that were added to the store.

Writes tables keyed by prompt_id, held-out prompts left out.

Every row that is left out is counted under a reason.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.config.settings import DataConfig
from tasks.data.added_preferences import read_added_preferences
from tasks.data.columns import Role
from tasks.data.conversations import BadRow
from tasks.data.loading import EXAMPLE_FIELDS, commit_rows, held_out_rule, instruct
from tasks.data.records import Record, prompt_id
from tasks.data.tally import Tally, read_records
from tasks.models.demands import Reader, as_read_by
from tasks.pipeline.stage import stage
from tasks.store.artifacts import NOTHING, Artifact
from tasks.store.drafts import Draft


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
    opened = _open(data.demonstrations, source, "demonstrations", data)
    rows, stats = _read_examples(*opened, policy, held_out_rule(held_out, data))
    return commit_rows(out, "demonstrations", rows, stats)


@stage(version=3, retries=2, given=_nothing_to_load, reads={"data": EXAMPLE_FIELDS})
def load_preferences(
    out: Draft, source: Artifact, held_out: Artifact, reward_base: Artifact, data: DataConfig
) -> Artifact:
    """Load the preference pairs for the reward model, held-out prompts left out."""
    assert data.preferences is not None
    assert data.preferences != "gold"
    reward_model = Reader("reward model", reward_base)
    opened = _open(data.preferences, source, "preferences", data)
    rows, stats = _read_examples(*opened, reward_model, held_out_rule(held_out, data))
    return commit_rows(out, "preferences", rows, stats)


def _open(
    given: DataSource | Literal["added"], source: Artifact, role: Role, data: DataConfig
) -> tuple[Iterator[tuple[str, Record]], Role, Tally]:
    """Return the records of the named data, or of the added ones, what they are for, and their tally."""
    if given == "added":
        tally = Tally(f"data.{role} = added", data.max_bad_fraction)
        return instruct(read_added_preferences(source, tally), data), role, tally
    tally = Tally(given.path, data.max_bad_fraction)
    return instruct(read_records(given, role, tally), data), role, tally


def _read_examples(
    records: Iterator[tuple[str, Record]],
    role: Role,
    tally: Tally,
    reader: Reader,
    leave_out: Callable[[str], str | None],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of a demonstrations or preferences table, each once, and the counts of what was left out.

    Raises:
        ConfigurationError: Too many rows are bad, or no row is left.
    """
    as_read = as_read_by([reader])
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
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
        identity = (id_, *texts.values())
        if identity in rows:
            tally.left_out["duplicate"] += 1
        rows.setdefault(identity, {"prompt_id": id_, "messages": record.messages, **texts})
    tally.check()
    if not rows:
        raise ConfigurationError(f"{tally.name} has no usable {role}: {tally.stats()}")
    return list(rows.values()), tally.stats()


def _texts(record: Record, role: Role) -> dict[str, Any]:
    if role == "demonstrations":
        return {"completion": record.completion}
    return {"chosen": record.chosen, "rejected": record.rejected, "margin": record.margin}
