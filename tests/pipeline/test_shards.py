"""A stage that is split over several workers."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from dispatched import Behaviour, sample_completions
from dispatching import SOURCE
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow

from infra.apply import apply
from tasks.config.compute import ComputeConfig
from tasks.pipeline.dispatch import (
    DeploymentFailedError,
)
from tasks.pipeline.shards import balance
from tasks.pipeline.site import open_site
from tasks.store.artifacts import Artifact
from tasks.store.folders import read_bytes


@pytest.fixture
def sharded(tmp_path, worker, monkeypatch) -> Callable[..., Artifact]:
    """Return a function that calls the stage that is split over two workers within a flow."""
    monkeypatch.setattr("tasks.pipeline.stage.CRASH_SECONDS", 0.0)
    asyncio.run(apply(2))
    places = dict.fromkeys(("sample_completions", "score_completions"), "sample-completions/test")
    site = open_site(str(tmp_path / "store"), ComputeConfig(**places, shards=2))

    def run(**behaviour: Any) -> Artifact:
        return flow(lambda: sample_completions(site, SOURCE, Behaviour(**behaviour)), name="pipeline")()

    run.site = site
    return run


def test_a_stage_is_split_over_workers_and_named_here(sharded):
    made = sharded()
    numbers = sharded.site.store.list("tables/numbers/t")
    assert sorted(map(int, numbers)) == list(range(SOURCE.rows))
    by_process = Counter(
        read_bytes(sharded.site.store.find(f"tables/numbers/t/{number}"), "pid.txt") for number in numbers
    )
    assert sorted(by_process.values()) == [2, 3]
    assert str(os.getpid()).encode() not in by_process
    assert made.rows == SOURCE.rows
    assert sharded() == made


def test_what_the_other_shard_has_committed_stays(sharded):
    with pytest.raises(
        DeploymentFailedError, match=r"1 of 2 shards failed, what they had committed is kept: .*4 fails"
    ):
        sharded(fails="4")
    store = sharded.site.store
    assert {"0", "1"} <= set(store.list("tables/numbers/t")), "of the shard that did not fail"
    assert sharded().rows == SOURCE.rows


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
