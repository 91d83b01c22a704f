"""Packs: which prompts, with which of their pairs, go through the model together, and how much each pack weighs.

An optimizer step takes whole prompts up to `batch_size` pairs, in an order drawn anew for each epoch. Its prompts are
packed under a token budget. A pack's loss is a mean over its pairs; weighed with its share of the step's pairs and
added up over packs and devices, it is the mean over the step's pairs, however they were packed.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tasks.pipeline.progress import track
from tasks.pipeline.shards import balance

Ids = Sequence[int]
UNBOUNDED = 1 << 62


class DpoExample(NamedTuple):
    """A prompt with its unique completions and the pairs of them."""

    prompt: Ids
    """Token ids."""
    completions: Sequence[Ids]
    """Token ids of each unique completion."""
    ref_logps: Sequence[float] | None
    """Log-probability of each completion under the reference, in nats; None: no loss reads them."""
    chosen: Sequence[int]
    """Each pair's chosen completion."""
    rejected: Sequence[int]
    """Each pair's rejected completion."""
    reward_gaps: Sequence[float] | None = None
    """Each pair's reward of chosen less that of rejected; None: no loss reads them."""
    unrelated: int | None = None
    """Place of a completion of another prompt; None: no loss reads one."""


class Piece(NamedTuple):
    """Some pairs of an example, with the size of what they need forwarded."""

    example: int
    """Number of the example."""
    first: int
    """The piece's first pair, counted within the example."""
    last: int
    """The pair after its last."""
    tokens: int
    """Tokens to forward."""
    chosen_tokens: int
    """Tokens of the chosen completions, one count a pair."""

    @property
    def pairs(self) -> int:
        """Return the number of pairs."""
        return self.last - self.first


class Pack(NamedTuple):
    """Pieces that are forwarded together on one device."""

    pieces: tuple[Piece, ...]
    weight: float
    """The pack's share of its step's pairs, or of their weights."""
    token_weight: float
    """The pack's share of the tokens of its step's chosen completions, one count a pair."""
    each: tuple[float, ...] = ()
    """Weight of a pair of each piece, 1 on average over the pack's pairs; empty: 1 each."""
    per_completion: float = 0.0
    """The step's pairs by its completions; 0: not counted, since no loss reads it."""


class Limits(NamedTuple):
    """What bounds steps and packs."""

    batch_size: int
    """Pairs an optimizer step."""
    tokens: int
    """Tokens a pack."""
    devices: int
    shared: bool
    """A prompt counts once for all its completions."""


class PackSchedule(NamedTuple):
    """The packs of all optimizer steps of a training; every step has equally many."""

    packs: list[Pack]
    """Step after step; within a step in rounds of one pack a device."""
    accumulation: int
    """Rounds a step."""
    steps: int


def measure(example: DpoExample, number: int, first: int, last: int, shared: bool) -> Piece:
    """Return some pairs of an example as a piece."""
    chosen, rejected = example.chosen[first:last], example.rejected[first:last]
    used = {*chosen, *rejected}
    prompt = len(example.prompt)
    tokens = sum(len(example.completions[i]) for i in used)
    tokens += prompt - 1 + len(used) if shared else prompt * len(used)
    return Piece(number, first, last, tokens, sum(len(example.completions[i]) for i in chosen))


def cut(piece: Piece, examples: Sequence[DpoExample], limits: Limits) -> list[Piece]:
    """Cut a piece into pieces that keep the limits of pairs and tokens; a single pair is never cut.

    A completion that several of them need is forwarded for each.
    """
    if piece.pairs == 1 or (piece.pairs <= limits.batch_size and piece.tokens <= limits.tokens):
        return [piece]
    return [small for half in halve(piece, examples, limits.shared) for small in cut(half, examples, limits)]


def halve(piece: Piece, examples: Sequence[DpoExample], shared: bool) -> list[Piece]:
    """Cut a piece of several pairs in two."""
    middle, example = (piece.first + piece.last) // 2, examples[piece.example]
    return [
        measure(example, piece.example, first, last, shared)
        for first, last in ((piece.first, middle), (middle, piece.last))
    ]


def draw_steps(
    pieces_of: Sequence[list[Piece]], batch_size: int, epochs: float, max_steps: int | None, seed: int
) -> list[list[Piece]]:
    """Return the pieces of each optimizer step; an epoch takes every piece once, the examples in a new order.

    Args:
        pieces_of: The pieces of each example.
        batch_size: Pairs a step.
        epochs: Passes over the pairs; the last may be partial.
        max_steps: Steps; overrides `epochs`.
        seed: Seed of the orders.
    """
    steps: list[list[Piece]] = []
    for epoch in itertools.count():
        order = np.random.default_rng([seed, epoch]).permutation(len(pieces_of))
        drawn = even_steps([piece for number in order for piece in pieces_of[number]], batch_size)
        if max_steps is None:
            drawn = drawn[: max(1, round((epochs - epoch) * len(drawn)))]
        steps += drawn
        if (epoch + 1 >= epochs) if max_steps is None else (len(steps) >= max_steps):
            break
    return steps[:max_steps]


def even_steps(pieces: list[Piece], batch_size: int) -> list[list[Piece]]:
    """Cut a sequence of pieces into steps of about `batch_size` pairs, as even as whole pieces allow."""
    pairs = np.array([piece.pairs for piece in pieces])
    count = -(-int(pairs.sum()) // batch_size)
    places = ((np.cumsum(pairs) - pairs / 2) * count / pairs.sum()).astype(int)
    cuts = np.flatnonzero(np.diff(places)) + 1
    return [[pieces[i] for i in own] for own in np.split(np.arange(len(pieces)), cuts)]


def spread(pieces: list[Piece], bins: int) -> list[list[Piece]]:
    """Spread pieces over bins so that the bins hold about equally many tokens; return the bins, the fullest first.

    With fewer pieces than bins, some bins stay empty.
    """
    longest_first = sorted(pieces, key=lambda piece: (-piece.tokens, piece.example, piece.first))
    groups = balance([piece.tokens for piece in longest_first], bins)
    filled = [[longest_first[place] for place in own] for own in groups] + [[] for _ in range(bins - len(groups))]
    return sorted(filled, key=lambda own: -sum(piece.tokens for piece in own))


def rounds_needed(step: list[Piece], limits: Limits) -> int:
    """Return the fewest rounds in which no pack of several pieces is over the budget."""
    least = -(-sum(piece.tokens for piece in step) // (limits.tokens * limits.devices))
    for rounds in range(max(1, least), len(step)):
        packs = spread(step, rounds * limits.devices)
        if all(len(own) < 2 or sum(piece.tokens for piece in own) <= limits.tokens for own in packs):
            return rounds
    return len(step)


def cut_for_devices(step: list[Piece], examples: Sequence[DpoExample], limits: Limits) -> list[Piece]:
    """Cut a step's pieces to the token budget, and further until each device has a piece, as far as there are pairs."""
    pieces = [small for piece in step for small in cut(piece, examples, limits._replace(batch_size=UNBOUNDED))]
    while len(pieces) < limits.devices and (most := max(pieces, key=lambda piece: piece.pairs)).pairs > 1:
        pieces.remove(most)
        pieces += halve(most, examples, limits.shared)
    return pieces


def weigh_packs(filled: list[list[Piece]], step: list[Piece]) -> list[Pack]:
    """Return a step's packs with their weights; a pack without pieces repeats the smallest piece at weight 0."""
    pairs, tokens = sum(piece.pairs for piece in step), sum(piece.chosen_tokens for piece in step)
    smallest = min(step, key=lambda piece: piece.tokens)
    return [
        Pack(tuple(own), sum(piece.pairs for piece in own) / pairs, sum(piece.chosen_tokens for piece in own) / tokens)
        if own
        else Pack((smallest,), 0.0, 0.0)
        for own in filled
    ]


def schedule_packs(
    examples: Sequence[DpoExample], limits: Limits, epochs: float, max_steps: int | None, seed: int
) -> PackSchedule:
    """Return the packs of a training.

    The steps depend on the examples, the batch size, the length and the seed alone; only how a step is packed depends
    on the budget and the devices. So a training goes on where it was on other devices.

    Args:
        examples: In an order that is always the same.
        limits: Bounds of steps and packs.
        epochs: Passes over the pairs.
        max_steps: Steps; overrides `epochs`.
        seed: Seed of the order.
    """
    counted = enumerate(track("measuring examples", examples, len(examples)))
    whole = [measure(example, number, 0, len(example.chosen), limits.shared) for number, example in counted]
    pieces = [cut(piece, examples, limits._replace(tokens=UNBOUNDED)) for piece in whole]
    drawn = draw_steps(pieces, limits.batch_size, epochs, max_steps, seed)
    steps = [cut_for_devices(step, examples, limits) for step in drawn]
    rounds = max(rounds_needed(step, limits) for step in steps)
    packs = [pack for step in steps for pack in weigh_packs(spread(step, rounds * limits.devices), step)]
    return PackSchedule(packs, rounds, len(steps))
