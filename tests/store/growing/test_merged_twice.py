"""Parts that were merged more than once, or twice at once: whatever was merged how, each completion counts once."""

import pyarrow as pa
import pytest
from growing import completions, draft, rows_of
from small_stores import PROVENANCE

from tasks.sampling.completions import select_completions
from tasks.sampling.drawing import Request
from tasks.sampling.last_list import note_last
from tasks.store.artifacts import Artifact
from tasks.store.compaction import LARGE, compact
from tasks.store.cover import select_slices
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable, Parts
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest
from tasks.store.slices import commit_slices

K = 3


def rows(prompt_ids: str) -> pa.Table:
    return completions([Request(prompt_id, 0, K) for prompt_id in prompt_ids])


def table_of(store: Store) -> GrowingTable:
    return GrowingTable(store, "completions", PROVENANCE)


def fill(store: Store, names: str) -> None:
    for name in names:
        table_of(store).append(name, rows(name))


def merge(store: Store, found: Parts | None = None) -> list[Artifact]:
    return compact(table_of(store), found or table_of(store).look(), LARGE, 1)


def prompts(store: Store, ids: str) -> Artifact:
    every = [{"prompt_id": id_, "messages": [{"role": "user", "content": id_}], "source": "test"} for id_ in ids]
    table = pa.Table.from_pylist(every, SCHEMAS["prompts"])
    files = {"rows.parquet": table_bytes(table, "prompts")}
    return draft(store, "prompts", f"p{ids}").commit("prompts", files, format_digest(rows_digest(table)))


def note(store: Store, ids: str, k: int = K) -> None:
    """Commit the list of slices that covers prompts, and name it as the last one."""
    slices = select_slices(table_of(store).parts(), dict.fromkeys(ids, frozenset(range(K)))).slices()
    listed = commit_slices(draft(store, "sample", f"s{ids}"), "completions", slices, {})
    note_last(table_of(store), store.folder_of(listed), prompts(store, ids), k)


def selected(store: Store, ids: str, k: int = K) -> list[dict]:
    selection = select_completions(table_of(store), table_of(store).look(), prompts(store, ids), k)
    assert not selection.missing
    return rows_of(selection.slices())


@pytest.mark.parametrize("late", "cdefghij")
def test_parts_that_were_merged_twice_since_the_last_list_count_once(store, late):
    fill(store, f"ab{late}")
    note(store, f"ab{late}")
    table = table_of(store)
    found = table.look()
    found.sizes = {name: found.sizes[name] for name in "ab"}  # as where the other part was too large for a run
    merge(store, found)
    merge(store)
    assert len(table.look().merged) == 2
    assert selected(store, f"ab{late}") == rows(f"ab{late}").to_pylist()


@pytest.mark.parametrize("late", "cdefghij")
def test_parts_that_two_compactions_at_once_merged_differently_count_once(store, late):
    fill(store, "ab")
    early = table_of(store).look()
    fill(store, late)
    note(store, f"ab{late}")
    merge(store)
    merge(store, early)
    assert len(table_of(store).look().merged) == 2
    assert selected(store, f"ab{late}") == rows(f"ab{late}").to_pylist()


def test_a_hint_that_says_more_completions_than_its_list_has_is_not_believed(store):
    fill(store, "ab")
    note(store, "ab", K + 1)  # as one flipped byte would have it
    selection = select_completions(table_of(store), table_of(store).look(), prompts(store, "ab"), K + 1)
    assert selection.missing == {"a": frozenset([K]), "b": frozenset([K])}
