"""What an arm loses where something that it rests on is weaker, such as its reward model."""

from collections.abc import Sequence

import numpy as np

from tasks.comparison.differences import Difference, of_seeds, win_differences
from tasks.comparison.outcome import Comparison, interval
from tasks.comparison.results import Result
from tasks.report.blocks import Table


def lost(weak: Sequence[float], strong: Sequence[float]) -> Difference | None:
    """Return what is lost from strong to weak, 100 (1 - weak / strong) per cent, with Student's t over seeds.

    Args:
        weak: (seeds,) gains.
        strong: (seeds,) gains of the same seeds.

    Returns:
        None where there is no seed, or one in which nothing was to be lost.
    """
    if not strong or min(strong) <= 0:
        return None
    return of_seeds([100 * (1 - ours / theirs) for ours, theirs in zip(weak, strong, strict=True)])


def weakened_table(comparison: Comparison) -> Table:
    """Return a row for each arm and its weaker version, over the seeds that both have."""
    head = (
        "arm, and weaker",
        f"gain of reward at KL {comparison.at_kl:.2g}",
        "weaker",
        "lost (%)",
        "win rate over sft",
        "weaker",
        "lost (%)",
    )
    rows = []
    for weak, strong in comparison.weakened.items():
        sides = _same_seeds(comparison.results.get(weak, []), comparison.results.get(strong, []))
        cells: list[str] = []
        for measured in (_gains(sides, comparison.at_kl), _win_rates(sides)):
            cells += ["-"] * 3 if measured is None else _cells(*measured)
        rows.append((f"{strong} / {weak}", *cells))
    return Table(head, rows, "What is lost from strong to weak, seed by seed")


def _cells(weak: list[float], strong: list[float]) -> list[str]:
    share = lost(weak, strong)
    told = "-" if share is None else f"{share.mean:.0f}" + _bounds(share)
    return [interval(of_seeds(strong)), interval(of_seeds(weak)), told]


def _bounds(share: Difference) -> str:
    return f" [{share.low:.0f}, {share.high:.0f}]" if np.isfinite(share.low) else " (one seed)"


def _same_seeds(weak: Sequence[Result], strong: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """Return the results of both arms for the seeds that both have, in one order."""
    left, right = ({each.seed: each for each in own} for own in (weak, strong))
    seeds = sorted(left.keys() & right.keys())
    return [left[seed] for seed in seeds], [right[seed] for seed in seeds]


def _gains(sides: tuple[list[Result], list[Result]], kl: float) -> tuple[list[float], list[float]] | None:
    """Return what each seed has gained at a KL, weak and strong; None where one does not reach it."""
    found = [[(each.curve.at(kl), each.reference) for each in own] for own in sides]
    known = [[reward - reference for reward, reference in own if reward is not None] for own in found]
    whole = all(own and len(own) == len(side) for own, side in zip(known, sides, strict=True))
    return (known[0], known[1]) if whole else None


def _win_rates(sides: tuple[list[Result], list[Result]]) -> tuple[list[float], list[float]] | None:
    """Return each seed's win rate over the reference, weak and strong."""
    weak, strong = ([_win_rate(each) for each in own] for own in sides)
    return (weak, strong) if weak else None


def _win_rate(result: Result) -> float:
    return 0.5 + float(win_differences(result.rewards[None], result.reference_rewards[None]).mean())
