"""Packs: every pair once an epoch, even steps, budgets, and weights that add up."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_groups import groups

from tasks.training.packs import DpoExample, Limits, Pack, Piece, cut, even_steps, measure, schedule_packs, spread
from tasks.training.weights import weigh_by_prompt

HAND = DpoExample([1, 2, 3], [[4, 5], [6, 7, 8, 9], [10]], [0.0] * 3, [0, 0, 1], [1, 2, 2])
LIMITS = st.builds(
    Limits,
    batch_size=st.integers(1, 12),
    tokens=st.integers(1, 80),
    devices=st.integers(1, 4),
    shared=st.booleans(),
)


def steps_of(planned) -> list[list[Pack]]:
    each = len(planned.packs) // planned.steps
    return [planned.packs[i : i + each] for i in range(0, len(planned.packs), each)]


def pairs_of(packs: list[Pack]) -> Counter:
    """Return how often each pair is trained on: packs without weight do not count."""
    pieces = [piece for pack in packs if pack.weight for piece in pack.pieces]
    return Counter((piece.example, pair) for piece in pieces for pair in range(piece.first, piece.last))


def test_measure_by_hand():
    # The prompt but its last token once, its last token with each of 3 completions, and 2 + 4 + 1 tokens of theirs.
    assert measure(HAND, 7, 0, 3, shared=True) == Piece(7, 0, 3, tokens=2 + 3 + 7, chosen_tokens=2 + 2 + 4)
    assert measure(HAND, 7, 0, 3, shared=False).tokens == 3 * 3 + 7
    assert measure(HAND, 7, 2, 3, shared=True) == Piece(7, 2, 3, tokens=2 + 2 + 5, chosen_tokens=4)


def test_a_prompt_with_too_many_pairs_is_cut_by_hand():
    whole = measure(HAND, 0, 0, 3, shared=True)
    assert cut(whole, [HAND], Limits(3, 100, 1, True)) == [whole]
    assert [(p.first, p.last) for p in cut(whole, [HAND], Limits(2, 100, 1, True))] == [(0, 1), (1, 3)]
    assert [(p.first, p.last) for p in cut(whole, [HAND], Limits(3, 1, 1, True))] == [(0, 1), (1, 2), (2, 3)]


def test_even_steps_by_hand():
    pieces = [Piece(i, 0, n, n, n) for i, n in enumerate([3, 3, 3, 3, 3, 3, 2])]
    assert [[p.pairs for p in step] for step in even_steps(pieces, 7)] == [[3, 3], [3, 3], [3, 3, 2]]
    assert even_steps(pieces, 1000) == [pieces]


def test_spread_by_hand():
    pieces = [Piece(i, 0, 1, tokens, 1) for i, tokens in enumerate([7, 5, 4, 3, 1])]
    assert [[p.tokens for p in own] for own in spread(pieces, 2)] == [[7, 3], [5, 4, 1]]
    assert spread(pieces[:1], 3) == [[pieces[0]], [], []]


@settings(max_examples=200, deadline=None)
@given(groups(), LIMITS, st.integers(1, 3), st.integers(0, 5))
def test_every_pair_once_an_epoch(own, limits, epochs, seed):
    planned = schedule_packs(own, limits, epochs, None, seed)
    trained = pairs_of(planned.packs)
    assert trained == {(i, pair): epochs for i, group in enumerate(own) for pair in range(len(group.chosen))}
    assert len(planned.packs) == planned.steps * planned.accumulation * limits.devices


@settings(max_examples=200, deadline=None)
@given(groups(), LIMITS, st.integers(0, 5))
def test_a_steps_pairs_weigh_the_same(own, limits, seed):
    for packs in steps_of(schedule_packs(own, limits, 1, None, seed)):
        total = pairs_of(packs).total()
        tokens = sum(piece.chosen_tokens for pack in packs if pack.weight for piece in pack.pieces)
        for pack in packs:
            if pack.weight:
                assert pack.weight == pytest.approx(sum(p.pairs for p in pack.pieces) / total)
                assert pack.token_weight == pytest.approx(sum(p.chosen_tokens for p in pack.pieces) / tokens)
        assert sum(pack.weight for pack in packs) == pytest.approx(1)
        assert sum(pack.token_weight for pack in packs) == pytest.approx(1)


@settings(max_examples=200, deadline=None)
@given(groups(), LIMITS, st.integers(0, 5))
def test_no_pack_of_several_pairs_is_over_the_budget(own, limits, seed):
    for pack in schedule_packs(own, limits, 1, None, seed).packs:
        assert sum(p.tokens for p in pack.pieces) <= limits.tokens or [p.pairs for p in pack.pieces] == [1]


@settings(max_examples=100, deadline=None)
@given(groups(), LIMITS, LIMITS, st.floats(0.2, 2.5), st.integers(0, 5))
def test_steps_do_not_depend_on_budget_or_devices(own, limits, other, epochs, seed):
    other = other._replace(batch_size=limits.batch_size)
    ours, theirs = (steps_of(schedule_packs(own, each, epochs, None, seed)) for each in (limits, other))
    assert [pairs_of(step) for step in ours] == [pairs_of(step) for step in theirs]


@settings(max_examples=100, deadline=None)
@given(groups(most=8), st.integers(1, 30), st.integers(0, 5))
def test_steps_are_even(own, batch_size, seed):
    total = sum(len(group.chosen) for group in own)
    sizes = [
        pairs_of(step).total()
        for step in steps_of(schedule_packs(own, Limits(batch_size, 10**9, 1, True), 1, None, seed))
    ]
    most = min(batch_size, max(len(group.chosen) for group in own))
    assert all(abs(size - total / -(-total // batch_size)) <= most for size in sizes)


@settings(max_examples=50, deadline=None)
@given(groups(), st.integers(1, 20), st.integers(0, 5))
def test_max_steps_takes_as_many_epochs_as_it_needs(own, max_steps, seed):
    limits = Limits(2, 100, 1, True)
    assert schedule_packs(own, limits, 1, max_steps, seed).steps == max_steps
    long = schedule_packs(own, limits, 1, max_steps + 3, seed)
    assert long.packs[: max_steps * long.accumulation][0] == long.packs[0]


def test_weights_by_prompt_by_hand():
    # Three pairs of one prompt and one of another: 1/3 each, and 1; on average 1/2.
    own = [HAND, HAND._replace(chosen=[0], rejected=[1])]
    (pack,) = weigh_by_prompt(schedule_packs(own, Limits(8, 1000, 1, True), 1, None, 0), own).packs
    weight_of = {piece.example: weight for piece, weight in zip(pack.pieces, pack.each, strict=True)}
    assert pack.weight == 1
    assert weight_of == pytest.approx({0: 2 / 3, 1: 2.0})


@settings(max_examples=200, deadline=None)
@given(groups(), LIMITS, st.integers(0, 5))
def test_a_step_weighs_1_and_its_whole_prompts_the_same(own, limits, seed):
    for packs in steps_of(weigh_by_prompt(schedule_packs(own, limits, 1, None, seed), own)):
        assert sum(pack.weight for pack in packs) == pytest.approx(1)
        of_prompt: Counter = Counter()
        for pack in packs:
            pairs = sum(piece.pairs for piece in pack.pieces)
            assert not pack.weight or sum(
                w * p.pairs for w, p in zip(pack.each, pack.pieces, strict=True)
            ) == pytest.approx(pairs)
            for weight, piece in zip(pack.each, pack.pieces, strict=bool(pack.weight)):
                of_prompt[piece.example] += pack.weight * weight * piece.pairs / pairs
        trained = Counter(example for example, _ in pairs_of(packs))
        each = {example: of_prompt[example] / (trained[example] / len(own[example].chosen)) for example in trained}
        assert list(each.values()) == pytest.approx([next(iter(each.values()))] * len(each))


def test_a_partial_epoch_is_a_part_of_the_whole():
    own = [HAND._replace(prompt=[i]) for i in range(1, 9)]
    limits = Limits(3, 100, 1, True)
    whole, half = (schedule_packs(own, limits, epochs, None, 0) for epochs in (1, 0.5))
    assert (whole.steps, half.steps) == (8, 4)
    assert half.packs == whole.packs[:4]
    more = schedule_packs(own, limits, 1.25, None, 0)
    assert more.steps == 10
    assert more.packs[:8] == whole.packs


def test_epochs_and_seeds_have_orders_of_their_own():
    own = [HAND._replace(prompt=[i]) for i in range(1, 9)]
    order = [pack.pieces[0].example for pack in schedule_packs(own, Limits(3, 100, 1, True), 2, None, 0).packs]
    assert order[:8] != order[8:]
    assert order[:8] != [
        pack.pieces[0].example for pack in schedule_packs(own, Limits(3, 100, 1, True), 1, None, 1).packs
    ]


def test_an_only_pair_goes_to_one_of_several_devices():
    only = HAND._replace(chosen=[0], rejected=[1])
    packs = schedule_packs([only], Limits(8, 100, 3, True), 1, None, 0).packs
    assert [pack.weight for pack in packs] == [1.0, 0.0, 0.0]
    assert len({pack.pieces for pack in packs}) == 1
