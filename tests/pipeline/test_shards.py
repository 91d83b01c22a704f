"""How prompts are shared out to shards."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.pipeline.shards import balance


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
