"""Small parts that are merged: what is found before and after, beside other writers, killed, pruned."""

import os
import random
import signal
import time
from collections.abc import Iterable

import pyarrow as pa
from chains import record
from commits import EVERY_STORE
from growing import completions, rows_of
from small_stores import PROVENANCE

from tasks.data.added_rows import AddedRows
from tasks.inspection.prune import prune
from tasks.sampling.drawing import Request
from tasks.store import compaction
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.compaction import LARGE, compact, compact_store, first_of_each
from tasks.store.cover import select_slices
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable, replaced_by
from tasks.store.index import read_index
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import Slice, commit_slices, read_slices

K = 3


def table_of(store: Store) -> GrowingTable:
    return GrowingTable(store, "completions", PROVENANCE)


def rows(prompt_ids: Iterable[str], first: int = 0, number: int = K) -> pa.Table:
    return completions([Request(prompt_id, first, number) for prompt_id in prompt_ids])


def fill(store: Store, *parts: str) -> list[Artifact]:
    """Append a part for each group of prompts, whose ids are letters."""
    return [table_of(store).append(f"{number:02}", rows(prompts)) for number, prompts in enumerate(parts)]


def merge(store: Store) -> list[Artifact]:
    table = table_of(store)
    return compact(table, table.look(), LARGE, 1)


def listed(store: Store, wanted: Iterable[str], key: str, k: int = K) -> Artifact:
    """Commit the list of slices that cover some prompts."""
    every = dict.fromkeys(wanted, frozenset(range(k)))
    selection = select_slices(table_of(store).parts(), every)
    assert not selection.missing
    return commit_slices(
        Draft(store, PROVENANCE.model_copy(update={"key": key * 64})), "completions", selection.slices(), {}
    )


@EVERY_STORE
def test_merged_parts_take_the_place_of_the_small_ones_and_nothing_else_changes(store):
    parts = fill(store, "ab", "cd", "ef", "g")
    before = listed(store, "abcdefg", "b")
    (merged,) = merge(store)
    assert list(table_of(store).parts()) == [merged]
    assert replaced_by(merged) == {f"0{number}": part.digest for number, part in enumerate(parts)}
    assert store.find(store.folder_of(before)) == before
    after = listed(store, "abcdefg", "c")
    assert [slice_.part.digest for slice_ in read_slices(store, after)] == [merged.digest]
    assert (after.digest, after.rows) == (before.digest, before.rows) == (merged.digest, 7 * K)
    assert rows_of(read_slices(store, after)) == rows_of(read_slices(store, before))
    assert merge(store) == []


def test_a_run_merges_where_many_are_small_and_leaves_large_ones_alone(store, monkeypatch):
    fill(store, *"abcdef")
    size = max(table_of(store).look().sizes.values())
    large = table_of(store).append("large", rows(f"{number:04}" for number in range(400)))
    table = table_of(store)
    assert compact(table, table.look(), size + 1, 6) == []
    monkeypatch.setattr(compaction, "LARGE", 3 * size + 1)
    merged = compact(table, table.look(), size + 1, 5)
    assert sorted(merged_names(merged)) == [["00", "01", "02"], ["03", "04", "05"]]
    assert {part.uri for part in table.parts()} == {large.uri, *(part.uri for part in merged)}


def merged_names(parts: Iterable[Artifact]) -> list[list[str]]:
    return [sorted(replaced_by(part)) for part in parts]


def test_merged_parts_are_merged_again_and_stand_for_all_that_they_hold(store):
    fill(store, "a", "b")
    (first,) = merge(store)
    table_of(store).append("02", rows("c"))
    (second,) = merge(store)
    assert sorted(replaced_by(second)) == ["00", first.uri.rpartition("/")[2], "01", "02"]
    assert list(table_of(store).parts()) == [second]
    store.delete(store.folder_of(first))
    assert list(table_of(store).parts()) == [second], "the parts of the first are replaced all the same"


def test_a_row_that_two_parts_hold_is_taken_once_from_the_first(store):
    other = rows("b").set_column(2, SCHEMAS["completions"].field("completion"), pa.array(["other"] * K))
    table_of(store).append("00", rows("ab"))
    table_of(store).append("01", pa.concat_tables([other, rows("c")]))
    (merged,) = merge(store)
    assert rows_of([Slice(merged)]) == rows("abc").to_pylist()


def test_first_of_each_keeps_the_order():
    table = pa.table({"a": ["x", "y", "x", "z", "y"], "b": [1, 1, 1, 1, 2], "c": [0, 1, 2, 3, 4]})
    assert first_of_each(table, ["a", "b"])["c"].to_pylist() == [0, 1, 3, 4]
    assert first_of_each(table, ["a"])["c"].to_pylist() == [0, 1, 3]
    assert first_of_each(table, ["c"]) == table


def test_a_damaged_part_is_not_merged_and_a_damaged_merged_part_is_passed_over(store, damage):
    parts = fill(store, *"abc")
    damage(f"{parts[1].uri}/manifest.json", "truncate")
    (merged,) = merge(store)
    assert sorted(replaced_by(merged)) == ["00", "02"]
    assert table_of(store).append("01", rows("b")) == parts[1]
    damage(f"{merged.uri}/manifest.json", "truncate")
    assert list(table_of(store).parts()) == parts


def test_whatever_grows_and_is_merged_any_prompts_are_covered_once(store):
    random_ = random.Random(0)
    known: dict[str, set[int]] = {}
    for step in range(30):
        if step % 5 == 4:
            merge(store)
        prompts = random_.sample("abcdefghij", random_.randint(1, 4))
        first = random_.randint(0, 2)
        table_of(store).append(f"{random_.getrandbits(64):016x}", rows(prompts, first, 2))
        for prompt_id in prompts:
            known.setdefault(prompt_id, set()).update((first, first + 1))
        wanted = {
            id_: frozenset(random_.sample(sorted(ids), random_.randint(1, len(ids)))) for id_, ids in known.items()
        }
        selection = select_slices(table_of(store).parts(), wanted)
        assert not selection.missing
        asked = {(id_, number) for id_, ids in wanted.items() for number in ids}
        every = rows("abcdefghij", 0, 4).to_pylist()
        assert rows_of(selection.slices()) == [
            row for row in every if (row["prompt_id"], row["completion_id"]) in asked
        ]


def test_a_killed_compaction_leaves_every_row_and_the_next_one_ends_it(tmp_path):
    for attempt in range(8):
        store = Store(str(tmp_path / str(attempt)))
        fill(store, *"abcdefghijklmnop")
        before = listed(store, "abcdefghijklmnop", "b")
        child = os.fork()
        if child == 0:
            try:
                merge(store)
            finally:
                os._exit(0)
        time.sleep(attempt * 0.004)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        after = listed(store, "abcdefghijklmnop", "c")
        assert (after.digest, after.rows) == (before.digest, before.rows)
        merge(store)
        assert len(list(table_of(store).parts())) == 1
        assert listed(store, "abcdefghijklmnop", "d").digest == before.digest


def test_two_compactions_at_once_leave_the_same(tmp_path):
    store = Store(str(tmp_path))
    fill(store, *"abcdefghijklmnop")
    children = []
    for _ in range(3):
        if (child := os.fork()) == 0:
            try:
                merge(store)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    (merged,) = table_of(store).parts()
    assert rows_of([Slice(merged)]) == rows("abcdefghijklmnop").to_pylist()


def test_pruning_keeps_what_was_merged_for_the_next_run_and_takes_the_small_parts_after_it(store):
    parts = fill(store, *"abc")
    own = listed(store, "abc", "b")
    record(store, [own])
    (merged,) = merge(store)
    stray = GrowingTable(store, "completions", Provenance(stage="x", version=1, key="9" * 64)).append("00", rows("z"))
    assert {entry.folder for entry in prune(store, 1).entries} == {store.folder_of(stray)}
    assert store.find(store.folder_of(merged)) == merged
    assert store.find(store.folder_of(own)) == own
    record(store, [listed(store, "abc", "c")])
    gone = {entry.folder for entry in prune(store, 1).entries}
    assert gone == {store.folder_of(own), *map(store.folder_of, parts)}
    assert list(table_of(store).parts()) == [merged]
    assert read_index(table_of(store).uri).keys() == {merged.uri.rpartition("/")[2]}


ADDED = AddedRows("prompts", "prompts", 1, "prompt_id")


def added(text: str) -> pa.Table:
    messages = [{"role": "user", "content": text}]
    return ADDED.lay_out(
        [
            {
                "prompt_id": text,
                "messages": messages,
                "source": "test",
                "reference_completion": None,
                "metadata": None,
            }
        ]
    )


def test_added_rows_keep_their_order_and_are_added_once_after_a_compaction(store):
    for text in "cab":
        assert ADDED.append(store, added(text)) == 1
    pinned = ADDED.find(store)
    ((table, merged),) = compact_store(store)
    assert (table.kind, len(merged)) == ("prompts", 1)
    assert [row["prompt_id"] for row in ADDED.read(pinned)] == list("cab"), "as they were when a run began"
    assert [row["prompt_id"] for row in ADDED.read(ADDED.find(store))] == list("cab")
    assert [ADDED.append(store, added(text)) for text in "abd"] == [0, 0, 1]
    assert [row["prompt_id"] for row in ADDED.read(ADDED.find(store))] == list("cabd")
    assert len(list(compact_store(store))) == 1
    assert [row["prompt_id"] for row in ADDED.read(ADDED.find(store))] == list("cabd")
