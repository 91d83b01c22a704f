"""Look-ups that go on at once."""

import threading
from collections.abc import Iterator

from small_stores import PROVENANCE, completions

from tasks.store import filesystem
from tasks.store.artifacts import Artifact
from tasks.store.cover import select_slices
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable


def test_things_are_done_in_parallel_and_given_in_order():
    meeting = threading.Barrier(4)  # breaks where fewer than four are under way

    def wait_and_double(number: int) -> int:
        meeting.wait(timeout=30)
        return number * 2

    assert list(filesystem.in_parallel(wait_and_double, range(12), 4)) == [number * 2 for number in range(12)]


def test_no_more_is_done_than_was_asked_for():
    started = []
    results = filesystem.in_parallel(started.append, range(100), 3)
    next(results)
    results.close()
    assert len(started) == 3


def test_nothing_is_read_where_nothing_is_missing(tmp_path):
    table = GrowingTable(Store(str(tmp_path)), "completions", PROVENANCE)
    parts = [table.append(name, completions(name)) for name in "ab"]

    def unreadable() -> Iterator[Artifact]:
        raise AssertionError("a part was looked up")
        yield parts[0]

    assert select_slices(unreadable(), {}).slices() == []
