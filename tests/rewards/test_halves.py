"""A second reward model on the other half of the preferences."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.config.settings import RewardModelConfig
from tasks.reward_model import half_of


@given(prompts=st.lists(st.text("abc", max_size=3), max_size=30), seed=st.integers(0, 9))
def test_halves_share_no_prompt_and_are_the_whole(prompts, seed):
    table = pa.table({"prompt_id": pa.array(prompts, pa.string()), "row": range(len(prompts))})
    halves = [half_of(table, half, seed).to_pydict() for half in (1, 2)]
    assert not set(halves[0]["prompt_id"]) & set(halves[1]["prompt_id"])
    assert sorted(halves[0]["row"] + halves[1]["row"]) == list(range(len(prompts)))
    assert half_of(table, 0, seed) == table


def test_halves_are_about_as_large():
    table = pa.table({"prompt_id": [str(number) for number in range(2000)]})
    assert half_of(table, 1, 0).num_rows == pytest.approx(1000, abs=100)


def test_a_ready_model_has_no_halves():
    assert RewardModelConfig().halves == (0,)
    assert RewardModelConfig(held_out=True).halves == (1, 2)
    with pytest.raises(ValueError, match=r"reward_model\.held_out needs preferences to train on"):
        RewardModelConfig(held_out=True, ready_model="x")
