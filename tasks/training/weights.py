"""What each pair of a step weighs where pairs do not weigh the same."""

from collections.abc import Sequence

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
    size = len(schedule.packs) // schedule.steps
    steps = (schedule.packs[first : first + size] for first in range(0, len(schedule.packs), size))
    return schedule._replace(packs=[pack for step in steps for pack in _weigh_step(step, pairs)])


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
