"""Prompts in: reads them from files or from those added to the store, writes tables keyed by prompt_id.

Every row that is left out is counted under a reason. Held-out prompts are chosen by the hash of the prompt, and what is
held out for evaluation enters neither sampling nor training.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

from tasks.config.data import DataConfig
from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource, PreferenceSource
from tasks.data.added_preferences import ADDED_PREFERENCES
from tasks.data.added_prompts import ADDED_PROMPTS, read_added_prompts
from tasks.data.columns import Role
from tasks.data.conversations import BadRow
from tasks.data.formats.known import find_format
from tasks.data.loading import HELD_OUT_FIELDS, PROMPT_FIELDS, LeaveOut, commit_rows, held_out_rule, instruct, laid_out
from tasks.data.prompt_table import hash_fraction
from tasks.data.read_once import parse_and_keep, take_or_parse
from tasks.data.records import Record, prompt_id, recognise
from tasks.data.sources import read_rows, source_digest
from tasks.data.tally import Parsed, Tally, log_unread_files, read_records
from tasks.models.demands import AsRead, Reader, as_read_by
from tasks.pipeline.stage import stage
from tasks.store.artifacts import NOTHING, Artifact, sha256_of
from tasks.store.drafts import Draft, canonical_json
from tasks.store.folders import Store
from tasks.store.parquet import stored_rows


class DataFiles(NamedTuple):
    """The data of a run, each with the digest of its content; `NOTHING` where the configuration names none."""

    prompts: Artifact
    demonstrations: Artifact
    preferences: Artifact
    evaluation_prompts: Artifact


def find_data(store: Store, data: DataConfig) -> DataFiles:
    """Find the files that the configuration names, or the rows added to the store, and hash their content.

    Raises:
        ConfigurationError: A file is missing, unreadable, or without the columns that its role needs; or nothing was
            added.
    """
    log_unread_files((data.prompts, data.demonstrations, *data.preference_sources, data.evaluation_prompts))
    return DataFiles(
        ADDED_PROMPTS.find(store) if data.prompts == "added" else _find(data.prompts, "prompts"),
        _find(data.demonstrations, "demonstrations"),
        ADDED_PREFERENCES.find(store) if data.preferences == "added" else find_sources(data.preference_sources),
        _find(data.evaluation_prompts, "prompts"),
    )


def collect_prompts(
    records: Iterable[tuple[str, Record]],
    tally: Tally,
    leave_out: LeaveOut = lambda prompt_id, where, messages: None,
    as_read: AsRead = lambda record: record,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a prompts table, each prompt once: the first wins. Of those before, the ids alone are held.

    Args:
        records: Place and content of each row.
        tally: Counts the rows that are left out.
        leave_out: Returns the reason to leave out a prompt; None: keep it.
        as_read: Returns a row as the models read it, or raises `BadRow`.

    Raises:
        ConfigurationError: Too many rows are bad; known once all are read.
    """
    seen: set[bytes] = set()
    for where, record in records:
        id_ = prompt_id(record.messages)
        number = bytes.fromhex(id_)  # half the memory of the text
        if (why := "duplicate" if number in seen else leave_out(id_, where, record.messages)) is not None:
            tally.left_out[why] += 1
            continue
        try:
            read = as_read(record)
        except BadRow as error:
            tally.drop(error.reason, where)
            continue
        seen.add(number)
        yield {
            "prompt_id": id_,
            "messages": read.messages,
            "source": where.rsplit(" ", 2)[0],
            "reference_completion": read.completion or read.chosen,
            "metadata": read.metadata,
        }
    tally.check()


@stage(version=3, retries=2, reads={"data": HELD_OUT_FIELDS})
def load_held_out(
    out: Draft,
    source: Artifact,
    base_model: Artifact,
    reward_base: Artifact,
    data: DataConfig,
    max_new_tokens: int,
    reward_models: dict[str, Artifact] | None = None,
) -> Artifact:
    """Load the prompts that nothing is trained on; `reward_models` are those beside `reward_base`, by name."""
    given = data.evaluation_prompts
    # The other rows of the same data are prompts, and are loaded next.
    records, tally = _open_prompts(given or data.prompts, source, data, take_or_parse if given else parse_and_keep)
    tally.names_unread = given is not None
    found = collect_prompts(
        records,
        tally,
        lambda id_, *_: None if given or hash_fraction(id_) < data.evaluation_fraction else "not held out",
        as_read_by(_readers(base_model, reward_base, reward_models), max_new_tokens),
    )
    with laid_out(out, "prompts", found) as table:
        if not table.rows:
            raise ConfigurationError(
                f"no prompt is held out for evaluation: raise data.evaluation_fraction = {data.evaluation_fraction}"
            )
        return table.commit(tally.stats())


@stage(
    version=1,
    retries=2,
    given=lambda held_out, limit: held_out if limit is None or held_out.rows <= limit else None,
)
def load_evaluation_prompts(out: Draft, source: Artifact, held_out: Artifact, limit: int | None) -> Artifact:
    """Take the first of the held-out prompts, to compare the policies on; the others are not trained on either.

    The source is in the key because the digest of the held-out prompts does not know their order.
    """
    return commit_rows(out, "prompts", islice(stored_rows(held_out), limit), {"held_out": held_out.rows})


@stage(version=3, retries=2, reads={"data": PROMPT_FIELDS})
def load_prompts(
    out: Draft,
    source: Artifact,
    held_out: Artifact,
    base_model: Artifact,
    reward_base: Artifact,
    data: DataConfig,
    max_new_tokens: int,
    reward_models: dict[str, Artifact] | None = None,
) -> Artifact:
    """Load the prompts to sample completions for: x; `reward_models` are those beside `reward_base`, by name."""
    records, tally = _open_prompts(data.prompts, source, data, take_or_parse)
    as_read = as_read_by(_readers(base_model, reward_base, reward_models), max_new_tokens)
    found = collect_prompts(records, tally, held_out_rule(held_out, data), as_read)
    with laid_out(out, "prompts", _first(found, data.max_prompts, tally)) as table:
        if table.rows < 2:
            raise ConfigurationError(
                f"{tally.name} has {table.rows} usable prompts, at least 2 are needed: {tally.stats()}"
            )
        return table.commit(tally.stats())


@stage(version=1, retries=2, given=lambda prompts, pilot: prompts if pilot is None else None)
def draw_pilot(out: Draft, prompts: Artifact, pilot: int | None) -> Artifact:
    """Draw so many of the prompts, by their hashes: those of a smaller pilot are among those of a larger one."""
    if pilot is not None and pilot >= prompts.rows:
        raise ConfigurationError(
            f"data.pilot = {pilot} must be less than the {prompts.rows} prompts that there are: run without a pilot"
        )
    rows = stored_rows(prompts)  # of which no more are held than are drawn
    drawn = heapq.nsmallest(pilot or 0, rows, key=lambda row: hash_fraction(f"pilot:{row['prompt_id']}"))
    return commit_rows(out, "prompts", drawn, {"prompts": prompts.rows})


@stage(version=1, retries=2, given=lambda prompts, share: prompts if share is None else None)
def draw_share(out: Draft, prompts: Artifact, share: tuple[int, int] | None) -> Artifact:
    """Take one of n shares of the prompts, told apart by their hashes: share (1, 3) is the first of three."""
    number, of = share or (1, 1)
    kept = (row for row in stored_rows(prompts) if int(of * hash_fraction(f"share:{row['prompt_id']}")) == number - 1)
    with laid_out(out, "prompts", kept) as table:
        if not table.rows:
            raise ConfigurationError(f"share {number} of {of} of {prompts.rows} prompts is empty: ask for fewer rounds")
        return table.commit({"prompts": prompts.rows})


def _find(source: DataSource | str | None, role: Role) -> Artifact:
    if not isinstance(source, DataSource):
        return NOTHING
    where, values = next(read_rows(source))
    recognise(values.keys(), role, where)
    return Artifact(kind="data", uri=source.path, digest=source_digest(source))


def find_sources(sources: Sequence[PreferenceSource]) -> Artifact:
    """Return the files of preferences. A single source, read plainly, has the digest of its content, as ever.

    Raises:
        ConfigurationError: As for `find_data`.
    """
    for source in sources:
        find_format(source)
    digests = [(source_digest(source), source.key_fields()) for source in sources]
    if not digests:
        return NOTHING
    plain = len(digests) == 1 and not digests[0][1]
    digest = digests[0][0] if plain else sha256_of(canonical_json(digests).encode())
    return Artifact(kind="data", uri=", ".join(source.path for source in sources), digest=digest)


def _open_prompts(
    given: DataSource | Literal["added"],
    source: Artifact,
    data: DataConfig,
    parse: Callable[[DataSource, str, set[str]], Iterator[Parsed]],
) -> tuple[Iterator[tuple[str, Record]], Tally]:
    """Return the records of the named prompts, or of the added ones, and their tally."""
    if given == "added":
        tally = Tally("data.prompts = added", data.max_bad_fraction)
        return instruct(read_added_prompts(source, tally), data), tally
    tally = Tally(given.path, data.max_bad_fraction)
    parsed = parse(given, source.digest, tally.unread)
    return instruct(read_records(given, "prompts", tally, parsed), data), tally


def _first(rows: Iterable[dict[str, Any]], limit: int | None, tally: Tally) -> Iterator[dict[str, Any]]:
    """Yield the first `limit` rows, and count the others as left out."""
    beyond = 0
    for number, row in enumerate(rows):
        if limit is None or number < limit:
            yield row
        else:
            beyond += 1
    if beyond:
        tally.left_out["beyond the configured number"] = beyond


def _readers(base_model: Artifact, reward_base: Artifact, others: dict[str, Artifact] | None) -> list[Reader]:
    """Return the models that will read the prompts; a reward model that is made from the policy reads as that does."""
    policy, reward = (
        Reader("policy", base_model, reads_answers=False),
        Reader("reward model", reward_base or base_model),
    )
    return [policy, reward, *(Reader(f"reward model {name}", own) for name, own in (others or {}).items())]
