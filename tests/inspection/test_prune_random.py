"""Random stores are pruned to what the kept runs reach, and no further."""

import uuid
from typing import NamedTuple

from chains import Origin, folders, output, part, record
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.inspection.catalog import read_catalog
from tasks.inspection.prune import kept_runs, prune
from tasks.store.folders import Store
from tasks.store.runs import read_runs

STAGES = ["load_prompts", "train_sft", "sample_completions", "train_dpo"]


class Step(NamedTuple):
    stage: str
    content: int
    inputs: list[int]
    parts: list[int]


class Look(NamedTuple):
    status: str
    stages: list[int]


steps = st.builds(
    Step,
    st.sampled_from(STAGES),
    st.integers(0, 5),
    st.lists(st.integers(0, 9), max_size=3),
    st.lists(st.integers(0, 5)),
)
looks = st.builds(Look, st.sampled_from(["finished", "running"]), st.lists(st.integers(0, 9), max_size=4))


def reachable(store: Store, roots: set[str]) -> set[str]:
    """Return what folders lead to, every artifact with an input's digest among it."""
    catalog, found, todo = read_catalog(store), set(), list(roots)
    while todo:
        folder = todo.pop()
        if folder in found:
            continue
        found.add(folder)
        manifest = catalog.entries[folder].manifest
        todo += manifest.parts
        todo += [
            source.folder for digest in manifest.provenance.inputs.values() for source in catalog.with_digest(digest)
        ]
    return found


@settings(max_examples=30)
@given(
    made=st.lists(steps, min_size=1, max_size=10),
    looked=st.lists(looks, min_size=1, max_size=5),
    keep_last=st.integers(1, 3),
    unique=st.booleans(),
)
def test_a_pruned_store_has_what_kept_runs_reach_and_no_more(made, looked, keep_last, unique):
    store = Store(f"memory://{uuid.uuid4().hex}")
    parts, outputs = [part(store, f"part-{i}") for i in range(6)], []
    for number, step in enumerate(made):
        inputs = {f"input_{i}": outputs[i % number].digest for i in step.inputs if number}
        content = f"{number}" if unique else f"{step.content}"
        own = [parts[i] for i in step.parts]
        outputs.append(output(store, step.stage, f"{number}", Origin(inputs, own), content))
    runs = [record(store, [outputs[i % len(outputs)] for i in look.stages], look.status) for look in looked]
    before, kept = folders(store), kept_runs(runs, keep_last)
    roots = {folder for run in kept for folder in run.stages}
    most = reachable(store, roots)

    prune(store, keep_last)
    after = folders(store)
    assert roots <= after <= most <= before
    if unique:
        assert after == most
    assert all(store.find(folder) for folder in after)
    catalog = read_catalog(store)
    for folder in after:
        if manifest := catalog.entries[folder].manifest:
            assert after.issuperset(manifest.parts)
            assert all(catalog.with_digest(digest) for digest in manifest.provenance.inputs.values())
    assert read_runs(store) == kept
    assert not prune(store, keep_last).entries
    assert folders(store) == after
