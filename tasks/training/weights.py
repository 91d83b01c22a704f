"""What pairs weigh where they do not weigh the same, and what part of its completions each has."""

from collections.abc import Iterator, Sequence

import numpy as np

from tasks.training.packs import DpoExample, Pack, PackSchedule


def weigh_by_prompt(schedule: PackSchedule, examples: Sequence[DpoExample]) -> PackSchedule:
    """Return packs in which a pair weighs 1 / (pairs of its prompt), and a step's pairs together 1, however packed.

    All pairs above a threshold give a prompt of n completions with wide rewards up to n (n - 1) / 2 pairs, and one of
    narrow rewards few or none. So every prompt of a step that is whole in it weighs the same; of a prompt that is cut
    over steps, each step has its share. Steps are of equally many pairs as before, and so not of equally many prompts.

    Args:
        schedule: Packs, of steps of equally many.
        examples: Of which the pieces are.
    """
    pairs = [len(example.chosen) for example in examples]
    return schedule._replace(packs=[pack for step in _steps(schedule) for pack in _weigh_step(step, pairs)])


def count_completions(schedule: PackSchedule, examples: Sequence[DpoExample]) -> PackSchedule:
    """Return packs that know how many pairs their step has by its completions.

    A completion of which a step has some pairs only, since its prompt is cut, counts for that part of it.

    Args:
        schedule: Packs, of steps of equally many.
        examples: Of which the pieces are.
    """
    shares = [completion_shares(example).sum(0) for example in examples]
    packs = []
    for step in _steps(schedule):
        pieces = [piece for pack in step if pack.weight for piece in pack.pieces]
        completions = sum(float(shares[piece.example][piece.first : piece.last].sum()) for piece in pieces)
        ratio = sum(piece.pairs for piece in pieces) / completions
        packs += [pack._replace(per_completion=ratio) for pack in step]
    return schedule._replace(packs=packs)


def completion_shares(example: DpoExample) -> np.ndarray:
    """Return the part of its completion that each side of a pair is, (2, pairs): 1 / (pairs the completion is in)."""
    sides = np.array([example.chosen, example.rejected])
    return np.asarray(1 / np.bincount(sides.ravel())[sides])


def _steps(schedule: PackSchedule) -> Iterator[list[Pack]]:
    size = len(schedule.packs) // schedule.steps
    return (schedule.packs[first : first + size] for first in range(0, len(schedule.packs), size))


def _weigh_step(step: list[Pack], pairs: list[int]) -> list[Pack]:
    shares = [sum(p.pairs / pairs[p.example] for p in pack.pieces) if pack.weight else 0.0 for pack in step]
    found = []
    for pack, share in zip(step, shares, strict=True):
        if pack.weight:
            mean = share / sum(piece.pairs for piece in pack.pieces)
            each = tuple(1 / pairs[piece.example] / mean for piece in pack.pieces)
            pack = pack._replace(weight=share / sum(shares), each=each)
        found.append(pack)
    return found
