"""Preferences of a prompt: what is unique, what all begin with, rankings; and which examples a step takes."""

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.config.errors import ConfigurationError
from tasks.training.passes import deal, draw_steps, like_lengths
from tasks.training.preference_groups import Rankings, group_pairs, halve_group, total_order, whole_prompts
from tasks.training.reward_losses import (
    bradley_terry_loss,
    centred_loss,
    k_comparisons_loss,
    margin_loss,
    plackett_luce_loss,
)


def pair(chosen, rejected, prompt="p"):
    return {"prompt_id": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


# Groups


def test_a_group_by_hand():
    group = group_pairs([pair([1, 2, 3, 4], [1, 2, 5]), pair([1, 2, 3, 4], [1, 2, 3, 9, 9])])
    assert group.prompt == (1, 2)
    assert group.completions == [(3, 4), (5,), (3, 9, 9)]
    assert (group.chosen, group.rejected, group.comparisons) == ([0, 0], [1, 2], 2)
    assert (
        group_pairs([pair([1, 2], [1, 3]), pair([1, 2], [1, 4]), pair([1, 2], [1, 3])]).comparisons == 2
    )  # a pair that a weight has doubled counts twice in the loss
    assert group.tokens(shared=False) == 4 + 3 + 5
    assert group.tokens(shared=True) == 1 + 3 + 2 + 4  # the prompt's last token begins each row


def test_every_completion_keeps_a_token():
    assert group_pairs([pair([1, 2], [1, 2, 3])]).completions == [(2,), (2, 3)]
    assert group_pairs([pair([1], [2])]).prompt == ()
    assert group_pairs([pair([7], [7])]).completions == [(7,)]


@given(st.lists(st.tuples(*[st.lists(st.integers(0, 2), min_size=1, max_size=6)] * 2), min_size=1, max_size=4))
def test_groups_and_their_halves_hold_the_same_sequences(sides):
    rows = [pair(*both) for both in sides]
    whole = group_pairs(rows)

    def pairs_of(group):
        return [
            tuple([*group.prompt, *group.completions[i]] for i in both)
            for both in zip(group.chosen, group.rejected, strict=True)
        ]

    assert pairs_of(whole) == [tuple(both) for both in sides]
    assert [both for half in halve_group(whole) for both in pairs_of(half)] == pairs_of(whole)
    assert all(half.comparisons == whole.comparisons <= len(rows) for half in halve_group(whole))


# Rankings


@pytest.mark.parametrize(
    ("pairs", "order"),
    [
        ([(0, 1)], [0, 1]),
        ([(0, 1), (1, 2)], [0, 1, 2]),
        ([(2, 0), (2, 1), (1, 0)], [2, 1, 0]),
        ([(0, 1), (1, 0)], None),
        ([(0, 1), (1, 2), (2, 0)], None),
        ([(0, 1), (0, 2)], None),  # nothing says which of 1 and 2 is better
        ([(0, 0)], None),
    ],
)
def test_total_orders(pairs, order):
    assert total_order(pairs) == order


def test_prompts_without_a_ranking_are_counted():
    rows = [pair([1], [2], "a"), pair([2], [3], "a"), pair([1], [2], "b"), pair([2], [1], "b"), pair([4], [5], "c")]
    tables = [pa.Table.from_pylist(rows[:1]), pa.Table.from_pylist(rows[1:3]), pa.Table.from_pylist(rows[3:])]
    assert [table["prompt_id"].to_pylist() for table in whole_prompts(tables)] == [["a", "a"], ["b", "b"], ["c"]]
    ranked = Rankings(tables)
    kept = [row for table in ranked for row in table.to_pylist()]
    assert kept == [*rows[:2], rows[4]]
    assert (ranked.kept, ranked.unranked) == (3, 2)
    with pytest.raises(ConfigurationError, match="none of 2 pairs belongs to a prompt whose pairs make a ranking"):
        list(Rankings([pa.Table.from_pylist(rows[2:4])]))


# Losses


def test_losses_by_hand():
    chosen, rejected = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    plain = bradley_terry_loss(chosen, rejected)
    assert plain.tolist() == pytest.approx([0.313262, 2.126928], abs=1e-6)  # ln(1 + 1/e), ln(1 + e^2)
    assert margin_loss(chosen, rejected, torch.tensor([1.0, -2.0])).tolist() == pytest.approx([0.693147] * 2, abs=1e-6)
    assert (centred_loss(chosen, rejected, 0.01) - plain).tolist() == pytest.approx([0.01, 0.04])
    assert k_comparisons_loss(chosen, rejected, torch.tensor([3, 3])).tolist() == pytest.approx((plain / 3).tolist())


def test_plackett_luce_by_hand():
    rankings = [torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0.0, 2.0])]
    found = plackett_luce_loss(rankings).tolist()
    assert found == pytest.approx([0.407606 + 0.313262, 2.126928], abs=1e-6)  # ln(1 + 1/e + 1/e^2), then a pair's
    shifted = plackett_luce_loss([own + 5 for own in rankings]).tolist()
    assert shifted == pytest.approx(found, abs=1e-5)


# Steps


def test_steps_take_each_example_once_an_epoch():
    steps = draw_steps(10, 4, 2.0, None, seed=1)
    assert [len(step) for step in steps] == [4, 4, 2, 4, 4, 2]
    first, second = (sorted(int(i) for step in own for i in step) for own in (steps[:3], steps[3:]))
    assert first == second == list(range(10))
    assert [step.tolist() for step in draw_steps(10, 4, 2.0, 4, seed=1)] == [step.tolist() for step in steps[:4]]
    assert len(draw_steps(10, 4, 0.5, None, seed=1)) == 2


def test_like_lengths_by_hand():
    assert like_lengths([3, 10, 9, 4, 8], 20, 0.75) == [[1, 2], [4], [3, 0]]
    assert like_lengths([3, 10], 5, 0.0) == [[1], [0]]  # a single one may have more


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 200), st.integers(1, 4))
def test_devices_get_each_example_once_in_equally_many_passes(tokens, budget, devices):
    dealt = deal(like_lengths(tokens, budget, 0.5), devices)
    assert len(dealt) == devices
    assert len({len(own) for own in dealt}) == 1
    assert sorted(i for own in dealt for ids in own for i in ids) == list(range(len(tokens)))
    for ids in (ids for own in dealt for ids in own if len(ids) > 1):
        assert len(ids) * max(tokens[i] for i in ids) <= budget
