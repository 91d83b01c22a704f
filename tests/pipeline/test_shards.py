"""How work is shared out to shards."""

import pytest
from doubles import SOURCE
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow

from tasks.config.compute import ComputeConfig
from tasks.pipeline.dispatch import DeploymentFailedError
from tasks.pipeline.shards import balance
from tasks.pipeline.site import Site
from tasks.pipeline.stage import Work, stage
from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft
from tasks.store.folders import Store


def test_the_dearest_go_first_to_the_lightest_shard():
    assert balance([1, 5, 4, 2], 2) == [[1, 0], [2, 3]]  # 5 + 1 and 4 + 2
    assert balance([3, 3], 5) == [[0], [1]]
    assert balance([], 3) == []


@given(costs=st.lists(st.integers(1, 100), max_size=40), shards=st.integers(1, 8))
def test_shards_hold_everything_once_and_are_balanced(costs, shards):
    groups = balance(costs, shards)
    assert sorted(index for group in groups for index in group) == list(range(len(costs)))
    assert all(groups)
    if costs:
        assert max(sum(costs[i] for i in group) for group in groups) <= sum(costs) / len(groups) + max(costs)


def test_a_split_that_shares_out_nothing_fails_instead_of_being_asked_for_ever(tmp_path, prefect_harness):
    @stage(version=1, work=lambda: Work("words", lambda: 3), split=lambda: [])
    def sample_completions(out: Draft, source: Artifact) -> Artifact:
        """Fill a table, in another process."""
        raise NotImplementedError

    places = dict.fromkeys(("sample_completions", "score_completions"), "sample-completions/test")
    site = Site(Store(str(tmp_path)), ComputeConfig(**places, shards=2))
    with pytest.raises(
        DeploymentFailedError, match="sample_completions: `split` shares out nothing, but 3 are missing"
    ):
        flow(lambda: sample_completions(site, SOURCE), name="nothing shared out")()
