"""Preferences that keep coming: a table in the store, read by runs whose `data.preferences` is `added`.

A row is one judgement: which of two completions of a prompt an annotator prefers. Two annotators who agree are two
rows, so that each can be asked about; a reward model is trained on the pair once.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from tasks.data.added_rows import AddedRows
from tasks.data.records import Record, prompt_id
from tasks.data.tally import Tally
from tasks.store.artifacts import Artifact, sha256_of
from tasks.store.drafts import canonical_json

TABLE_VERSION = 1
ADDED_PREFERENCES = AddedRows("preferences", "added_preferences", TABLE_VERSION, "preference_id")
OPPOSITE = "the annotator has preferred the other one"


def collect_preferences(
    records: Iterable[tuple[str, Record]], known: Collection[str], tally: Tally
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table of added preferences, each judgement once: the first wins.

    A named annotator cannot prefer both. Rows that name nobody may be of several people, who may disagree.

    Args:
        records: Place and content of each row.
        known: The preference_ids that the store has.
        tally: Counts the rows that are left out.

    Raises:
        ConfigurationError: Too many rows are bad; known once all are read.
    """
    seen: set[str] = set()
    for where, record in records:
        id_, opposite = _ids(record)
        if id_ in seen:
            tally.left_out["duplicate"] += 1
        elif record.annotator is not None and (opposite in seen or opposite in known):
            tally.drop(OPPOSITE, where)
        else:
            seen.add(id_)
            yield {
                "preference_id": id_,
                "prompt_id": prompt_id(record.messages),
                "messages": record.messages,
                "chosen": record.chosen,
                "rejected": record.rejected,
                "margin": record.margin,
                "annotator": record.annotator,
                "source": where.rsplit(" ", 2)[0],
                "metadata": record.metadata,
            }
    tally.check()


def read_added_preferences(added: Artifact, tally: Tally) -> Iterator[tuple[str, Record]]:
    """Yield place and content of each added preference.

    Raises:
        DamagedArtifactError: See `AddedRows.read`.
    """
    for row in ADDED_PREFERENCES.read(added):
        tally.total += 1
        where = f"{row['source']} preference {row['preference_id']}"
        sides = {name: row[name] for name in ("chosen", "rejected", "margin", "annotator", "metadata")}
        yield where, Record(row["messages"], **sides)


def _ids(record: Record) -> tuple[str, str]:
    """Return the id of a judgement, and that of its opposite."""
    prompt, sides = prompt_id(record.messages), [record.chosen, record.rejected]
    texts = (canonical_json([prompt, *given, record.annotator]) for given in (sides, sides[::-1]))
    own, opposite = (sha256_of(text.encode()) for text in texts)
    return own, opposite
