"""What a run cost that has several rewards: each of their outputs has a line of its own."""

import pytest

from tasks.pipeline.configuration import Config
from tasks.pipeline.site import Site
from tasks.report.costs import costs_section
from tasks.report.facts import Facts
from tasks.report.origin import origin_section
from tasks.report.watching import Watch
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.runs import RunRecord

SEVERAL = {
    "data": {"prompts": "x", "preferences": "y"},
    "sft": {"ready_model": "y"},
    "rewards": {"brief": {"function": "m:f"}, "unused": {"function": "m:g"}},
    "pairs": {"rewards": {"reward_model": {}, "brief": {}}},
}


def scored(store: Store, key: str, seconds: float) -> Artifact:
    """Return rewards whose scoring took so long."""
    draft = Draft(store, Provenance(stage="score_completions", version=4, key=key * 64))
    with draft.measured():
        draft.cost.measure = lambda: {"seconds": seconds}
        return draft.commit("rewards", {}, key * 64)


@pytest.fixture
def facts(tmp_path) -> Facts:
    """Return what is known of a run that found the rewards of the reward model, and computed those of the function."""
    store = Store(str(tmp_path))
    record = RunRecord.begin(store)
    site = Site(store, record=record)
    watch = Watch(site, record, Config.model_validate(SEVERAL))
    first, second = scored(store, "a", 100.0), scored(store, "b", 7.0)
    site.made.add(second.uri)
    for artifact in (first, second, second):  # a run may look at one again
        watch.saw("score_completions", artifact)
    return watch.facts


def test_each_reward_has_its_line_and_the_computed_one_alone_counts(facts):
    note, table = costs_section(facts).blocks
    assert [row[:3] for row in table.rows] == [
        ("score_completions", "reused", "100.0"),
        ("score_completions brief", "computed", "7.0"),
    ]
    assert note.text.startswith("This run computed for 7 s.")


def test_each_reward_is_an_input_by_digest(facts):
    table = origin_section(facts).blocks[0]
    assert [row[:2] for row in table.rows] == [
        ("score_completions", "a" * 12),
        ("score_completions brief", "b" * 12),
    ]
