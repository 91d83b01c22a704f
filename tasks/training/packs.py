"""Packs: which prompts, with which of their pairs, go through the model together, and how much each pack weighs.

An optimizer step takes whole prompts up to `batch_size` pairs, in an order drawn anew for each epoch. Its prompts are
packed under a token budget. A pack's loss is a mean over its pairs; weighed with its share of the step's pairs and
added up over packs and devices, it is the mean over the step's pairs, however they were packed.
"""

import heapq
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Ids = Sequence[int]
UNBOUNDED = 1 << 62


class Group(NamedTuple):
    """A prompt with its unique completions and its pairs."""

    prompt: Ids
    """Token ids."""
    completions: Sequence[Ids]
    """Token ids of each unique completion."""
    ref_logps: Sequence[float]
    """Log-probability of each completion under the reference, in nats."""
    chosen: Sequence[int]
    """Each pair's chosen completion."""
    rejected: Sequence[int]
    """Each pair's rejected completion."""


class Piece(NamedTuple):
    """Some pairs of a group, with the size of what they need forwarded."""

    group: int
    first: int
    last: int
    tokens: int
    chosen_tokens: int

    @property
    def pairs(self) -> int:
        """Return the number of pairs."""
        return self.last - self.first


class Pack(NamedTuple):
    """Pieces that are forwarded together on one device."""

    pieces: tuple[Piece, ...]
    weight: float
    """The pack's share of its step's pairs."""
    token_weight: float
    """The pack's share of the tokens of its step's chosen completions, one count a pair."""


class Limits(NamedTuple):
    """What bounds steps and packs."""

    batch_size: int
    """Pairs an optimizer step."""
    tokens: int
    """Tokens a pack."""
    devices: int
    shared: bool
    """A prompt counts once for all its completions."""


class Plan(NamedTuple):
    """A whole training: the packs of each step, as many in each."""

    packs: list[Pack]
    """Step after step; within a step in rounds of one pack a device."""
    accumulation: int
    """Rounds a step."""
    steps: int


def measure(group: Group, number: int, first: int, last: int, shared: bool) -> Piece:
    """Return some pairs of a group as a piece."""
    chosen, rejected = group.chosen[first:last], group.rejected[first:last]
    used = {*chosen, *rejected}
    prompt = len(group.prompt)
    tokens = sum(len(group.completions[i]) for i in used)
    tokens += prompt - 1 + len(used) if shared else prompt * len(used)
    return Piece(number, first, last, tokens, sum(len(group.completions[i]) for i in chosen))


def cut(piece: Piece, groups: Sequence[Group], limits: Limits) -> list[Piece]:
    """Return a piece in so many, which repeat completions, that none has too many pairs or tokens; a pair stays one."""
    if piece.pairs == 1 or (piece.pairs <= limits.batch_size and piece.tokens <= limits.tokens):
        return [piece]
    return [small for half in halve(piece, groups, limits.shared) for small in cut(half, groups, limits)]


def halve(piece: Piece, groups: Sequence[Group], shared: bool) -> list[Piece]:
    """Return a piece of several pairs as two."""
    middle, group = (piece.first + piece.last) // 2, groups[piece.group]
    return [
        measure(group, piece.group, first, last, shared)
        for first, last in ((piece.first, middle), (middle, piece.last))
    ]


def draw_steps(
    groups: Sequence[list[Piece]], batch_size: int, epochs: float, max_steps: int | None, seed: int
) -> list[list[Piece]]:
    """Return the pieces of each optimizer step: all of them in each epoch, groups in a new order.

    Args:
        groups: The pieces of each group.
        batch_size: Pairs a step.
        epochs: Passes over the pairs; the last may be partial.
        max_steps: Steps; overrides `epochs`.
        seed: Seed of the orders.
    """
    steps: list[list[Piece]] = []
    for epoch in itertools.count():
        order = np.random.default_rng([seed, epoch]).permutation(len(groups))
        drawn = even_steps([piece for number in order for piece in groups[number]], batch_size)
        if max_steps is None:
            drawn = drawn[: max(1, round((epochs - epoch) * len(drawn)))]
        steps += drawn
        if (epoch + 1 >= epochs) if max_steps is None else (len(steps) >= max_steps):
            break
    return steps[:max_steps]


def even_steps(pieces: list[Piece], batch_size: int) -> list[list[Piece]]:
    """Return pieces, in their order, in steps of about `batch_size` pairs: as even as whole pieces allow."""
    pairs = np.array([piece.pairs for piece in pieces])
    count = -(-int(pairs.sum()) // batch_size)
    places = ((np.cumsum(pairs) - pairs / 2) * count / pairs.sum()).astype(int)
    cuts = np.flatnonzero(np.diff(places)) + 1
    return [[pieces[i] for i in own] for own in np.split(np.arange(len(pieces)), cuts)]


def spread(pieces: list[Piece], bins: int) -> list[list[Piece]]:
    """Return the pieces in so many bins of like tokens, the fullest first: the longest goes where the least is.

    Graham's longest-processing-time rule (1969). Bins stay empty where there are fewer pieces.
    """
    filled: list[list[Piece]] = [[] for _ in range(bins)]
    heap = [(0, number) for number in range(bins)]
    for piece in sorted(pieces, key=lambda piece: (-piece.tokens, piece.group, piece.first)):
        tokens, number = heap[0]
        filled[number].append(piece)
        heapq.heapreplace(heap, (tokens + piece.tokens, number))
    return sorted(filled, key=lambda own: -sum(piece.tokens for piece in own))


def rounds_needed(step: list[Piece], limits: Limits) -> int:
    """Return the fewest rounds in which no pack of several pieces is over the budget."""
    least = -(-sum(piece.tokens for piece in step) // (limits.tokens * limits.devices))
    for rounds in range(max(1, least), len(step)):
        packs = spread(step, rounds * limits.devices)
        if all(len(own) < 2 or sum(piece.tokens for piece in own) <= limits.tokens for own in packs):
            return rounds
    return len(step)


def for_devices(step: list[Piece], groups: Sequence[Group], limits: Limits) -> list[Piece]:
    """Return a step's pieces, cut to the budget and, as far as there are pairs, until each device has one."""
    pieces = [small for piece in step for small in cut(piece, groups, limits._replace(batch_size=UNBOUNDED))]
    while len(pieces) < limits.devices and (most := max(pieces, key=lambda piece: piece.pairs)).pairs > 1:
        pieces.remove(most)
        pieces += halve(most, groups, limits.shared)
    return pieces


def weigh(filled: list[list[Piece]], step: list[Piece]) -> list[Pack]:
    """Return a step's packs; one that has nothing repeats a piece, with no weight."""
    pairs, tokens = sum(piece.pairs for piece in step), sum(piece.chosen_tokens for piece in step)
    smallest = min(step, key=lambda piece: piece.tokens)
    return [
        Pack(tuple(own), sum(piece.pairs for piece in own) / pairs, sum(piece.chosen_tokens for piece in own) / tokens)
        if own
        else Pack((smallest,), 0.0, 0.0)
        for own in filled
    ]


def plan(groups: Sequence[Group], limits: Limits, epochs: float, max_steps: int | None, seed: int) -> Plan:
    """Return the packs of a training.

    The steps depend on the groups, the batch size, the length and the seed alone; only how a step is packed depends on
    the budget and the devices. So a training goes on where it was on other devices.

    Args:
        groups: In an order that is always the same.
        limits: Bounds of steps and packs.
        epochs: Passes over the pairs.
        max_steps: Steps; overrides `epochs`.
        seed: Seed of the order.
    """
    whole = [measure(group, number, 0, len(group.chosen), limits.shared) for number, group in enumerate(groups)]
    pieces = [cut(piece, groups, limits._replace(tokens=UNBOUNDED)) for piece in whole]
    drawn = draw_steps(pieces, limits.batch_size, epochs, max_steps, seed)
    steps = [for_devices(step, groups, limits) for step in drawn]
    rounds = max(rounds_needed(step, limits) for step in steps)
    packs = [pack for step in steps for pack in weigh(spread(step, rounds * limits.devices), step)]
    return Plan(packs, rounds, len(steps))
