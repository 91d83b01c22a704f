"""A set in the store, as prompts and completions: each reward scores it once, ever, in the table of rewards."""

from typing import NamedTuple

import pyarrow as pa

from tasks.quality.answers import Answers
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft, keyed, provenance_of
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest
from tasks.store.slices import Slice, commit_slices

PART = 256
"""Prompts a part: what a crash loses of a scoring, at most."""
TABLE = keyed("judged_answers", 1, {}, {}, {})
"""No policy has drawn these completions: they have no tokens, and are found by what they say."""


class Kept(NamedTuple):
    """A set as stages take it."""

    prompts: Artifact
    completions: Artifact
    folders: tuple[str, ...]
    """Where both are, relative to the store."""


def keep(store: Store, answers: Answers) -> Kept:
    """Commit a set, which is found again by its content.

    Raises:
        StoreError: Something could not be written.
    """
    ids = sorted(answers.prompts)
    rows = [
        {"prompt_id": id_, "source": answers.source, **answers.prompts[id_]._asdict(), "reference_completion": None}
        for id_ in ids
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])
    digest = format_digest(rows_digest(table.drop_columns("source")))
    draft = Draft(store, provenance_of("judged_prompts", 1, {"rows": digest}))
    prompts = draft.commit("prompts", {"rows.parquet": table_bytes(table, "prompts")}, digest, rows=len(rows))
    parts = [_part(store, answers, ids[start : start + PART]) for start in range(0, len(ids), PART)]
    own = Draft(store, provenance_of("judged_answers", 1, {"prompts": prompts, "parts": parts}))
    found = commit_slices(own, "completions", [Slice(part) for part in parts], {"source": answers.source})
    return Kept(prompts, found, (draft.folder, own.folder))


def _part(store: Store, answers: Answers, ids: list[str]) -> Artifact:
    """Commit the completions of some prompts."""
    rows = [
        {"prompt_id": id_, "completion_id": number, "completion": text, "token_ids": [], "num_tokens": 0}
        for id_ in ids
        for number, text in enumerate(answers.completions[id_])
    ]
    table = pa.Table.from_pylist([{**row, "finish_reason": "stop"} for row in rows], schema=SCHEMAS["completions"])
    return GrowingTable(store, "completions", TABLE).append(format_digest(rows_digest(table))[:32], table)
