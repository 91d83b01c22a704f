"""Outside of the task: outputs that are given, and what a dry run foresees."""

from collections.abc import Iterator
from typing import Any

import pytest
from doubles import Double

from tasks.pipeline.dry_run import PLAN, Plan, pending
from tasks.store.artifacts import NOTHING, Artifact
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.manifests import read_bytes, read_manifest


def test_a_ready_output_takes_the_stage_s_place(tmp_path):
    given_model = Artifact(kind="model", uri="file:///ready", digest="9" * 64)
    ready = Double(given=lambda source, settings: given_model if settings.factor == 1 else None)
    assert ready(Store(str(tmp_path)), factor=1) is given_model
    assert ready.calls == []
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_is_not_ready_is_computed(tmp_path, states):
    ready = Double(given=lambda source, settings: NOTHING if settings.factor == 1 else None)
    assert states(lambda: ready(Store(str(tmp_path)), factor=2)) == ["Completed"]
    assert len(ready.calls) == 1


@pytest.fixture
def plan(tmp_path) -> Iterator[Plan]:
    token = PLAN.set(Plan(tmp_path))
    yield PLAN.get()
    PLAN.reset(token)


def test_a_dry_run_writes_nothing_to_the_store(store, plan):
    data = Double()
    artifact = data(store)
    assert read_bytes(artifact, "number.txt") == b"10", "a stage that reads data has run, into memory"
    assert not artifact.uri.startswith(store.uri)
    assert store.fs.find(store.root) == []
    (step,) = plan.steps
    assert (step["stage"], step["action"], len(step["key"])) == ("double", "compute", 64)


def test_a_dry_run_estimates_costly_stages(tmp_path, plan):
    def preview(source: Artifact, out: Draft) -> tuple[Artifact, dict[str, Any]]:
        return pending(2 * source.rows, out.provenance.stage), {"completions": 2 * source.rows}

    costly, store = Double(preview=preview), Store(str(tmp_path))
    first = costly(store)
    second = costly(store, first)
    assert (first.kind, first.rows, second.rows) == ("pending", 10, 20)
    assert costly.calls == []
    assert list(tmp_path.iterdir()) == []
    assert [step["completions"] for step in plan.steps] == [10, 20]
    assert plan.steps[1]["key"] == "known after double"
    assert plan.steps[1]["action"] == "compute"


def test_a_dry_run_names_what_is_there(store, double, states, tmp_path):
    made = []
    states(lambda: made.append(double(store)))
    before = store.fs.find(store.root)
    token = PLAN.set(Plan(tmp_path))
    try:
        assert double(store) == made[0]
        double(store, factor=3)
        assert [step["action"] for step in PLAN.get().steps] == ["reuse", "compute"]
        assert PLAN.get().steps[0]["key"] == read_manifest(made[0].uri).provenance.key
    finally:
        PLAN.reset(token)
    assert store.fs.find(store.root) == before
