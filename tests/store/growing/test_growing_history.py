"""Any history of draws and scores gives each wanted completion once, with its own reward."""

from collections import Counter

import pyarrow as pa
import pytest
from growing import ORDER, completions, draft
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.rewards.scored import read_scored
from tasks.sampling.drawing import Request, cut_into_parts, requests_for
from tasks.store.artifacts import Provenance
from tasks.store.cover import select_slices
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.slices import Slice, commit_slices, read_whole_prompts

pytestmark = pytest.mark.usefixtures("one_thread")


ID = ["prompt_id", "completion_id"]


def test_requests_are_runs_of_following_numbers():
    asked = requests_for({"a": frozenset({0, 1, 4, 6, 7}), "b": frozenset({3})})
    assert asked == [Request("a", 0, 2), Request("a", 4, 1), Request("a", 6, 2), Request("b", 3, 1)]


STEPS = st.lists(
    st.tuples(
        st.sets(st.sampled_from("abcdefgh"), min_size=1), st.integers(1, 6), st.integers(1, 4), st.integers(0, 9)
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_any_history_gives_each_wanted_completion_once_and_whole_prompts_together(tmp_path_factory, steps):
    store = Store(str(tmp_path_factory.mktemp("store")))
    table = GrowingTable(store, "completions", Provenance(stage="completions", version=1, key="c" * 64))
    for step, (names, k, part_size, lost) in enumerate(steps):
        wanted = dict.fromkeys(sorted(names), frozenset(range(k)))
        selection = select_slices(table.parts(), wanted)
        requests = requests_for(selection.missing)
        lengths = dict.fromkeys(wanted, 1)
        for number, part in enumerate(cut_into_parts(requests, lengths, selection.begun, part_size)):
            selection.add(table.append(f"{step}-{number}", completions(part)), {own.prompt_id for own in part})
        slices = selection.slices()
        rows = pa.concat_tables([slice_.read() for slice_ in slices])
        every = sorted((name, number) for name in names for number in range(k))
        assert sorted(zip(rows["prompt_id"].to_pylist(), rows["completion_id"].to_pylist(), strict=True)) == every
        assert sum(slice_.num_rows() for slice_ in slices) == len(every)
        seen: set[str] = set()
        for rows in read_whole_prompts(slices, ["prompt_id"]):
            own = Counter(rows["prompt_id"].to_pylist())
            assert set(own.values()) == {k}
            assert not seen & own.keys()
            seen |= own.keys()
        parts = store.list(table.folder)
        if lost < len(parts):
            store.delete(f"{table.folder}/{parts[lost]}")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=st.permutations("abcdefgh"),
    scored=st.permutations("abcdefgh"),
    cuts=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    named=st.booleans(),
    split=st.integers(0, 3),
)
def test_rewards_are_joined_by_ids_however_both_are_cut(tmp_path_factory, drawn, scored, cuts, named, split):
    """Three completions a prompt; the first `split` of some lie in parts of their own, as after k has grown."""
    store, k = Store(str(tmp_path_factory.mktemp("store"))), 3
    provenance = {kind: Provenance(stage=kind, version=1, key=kind) for kind in ("completions", "rewards")}
    table, selection = GrowingTable(store, "completions", provenance["completions"]), select_slices([], {})
    for number, start in enumerate(range(0, 8, cuts[0])):
        names = drawn[start : start + cuts[0]]
        for first, last in ((0, split), (split, k)):
            if last > first:
                rows = completions([Request(name, first, last - first) for name in names])
                selection.add(table.append(f"{number}-{first}", rows), names)
    parts = [slice_.part for slice_ in selection.slices()]
    table, slices = GrowingTable(store, "rewards", provenance["rewards"]), []
    for number, start in enumerate(range(0, 8, cuts[1])):
        rows = completions([Request(name, 0, k) for name in scored[start : start + cuts[1]]])
        numbers = [ord(name) + own / 8 for name, own in zip(*(rows[c].to_pylist() for c in ID), strict=True)]
        # Named by a part that it does not score, or by none: names only say where to look first.
        name = parts[number % len(parts)].digest[:32] + f"-{number}" if named else str(number)
        slices.append(Slice(table.append(name, rows.select(ID).append_column("reward", pa.array(numbers)))))
    artifacts = [
        commit_slices(draft(store, kind, kind), kind, own, {})
        for kind, own in (("completions", selection.slices()), ("rewards", slices))
    ]
    found = []
    for own, rewards in read_scored(store, *artifacts, [*ID, "completion"]):
        assert set(Counter(own["prompt_id"].to_pylist()).values()) == {k}
        gathered = own.select(ID).sort_by(ORDER)
        assert gathered == rewards.select(ID).sort_by(ORDER)
        found += rewards.to_pylist()
    assert all(row["reward"] == ord(row["prompt_id"]) + row["completion_id"] / 8 for row in found)
    assert len(found) == 8 * k
