"""What came out of a comparison: each arm's figures, and each pair of arms in one sentence."""

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from tasks.comparison.arms import ComparisonConfig
from tasks.comparison.differences import (
    LEVEL,
    Difference,
    holm,
    of_prompts_and_seeds,
    of_seeds,
    win_differences,
)
from tasks.comparison.frontier import common_kl
from tasks.comparison.results import Result
from tasks.comparison.sweeps import Sweep
from tasks.report.blocks import Table, number


class Comparison(NamedTuple):
    """The results of all arms that ended."""

    results: dict[str, list[Result]]
    """Arm -> a result a seed."""
    failed: dict[str, str]
    """Arm -> why it has no result."""
    at_kl: float
    """KL at which arms are compared."""
    sweeps: Sequence[Sweep] = ()
    """Arms that differ in one setting."""
    weakened: Mapping[str, str] = MappingProxyType({})
    """Arm -> the arm that it is but for something weaker."""


class Verdict(NamedTuple):
    """How one arm compares with another."""

    arm: str
    other: str
    at_kl: Difference | None
    """Difference of mean reward at the same KL; None where a seed does not reach it."""
    wins: Difference
    """Win rate of the last model over the other's, less one half."""
    p: float
    """Of `at_kl`, or of `wins` where there is none, corrected for all pairs of arms."""

    @property
    def word(self) -> str:
        """Return what the arm is to the other one: `better` or `worse`; nothing where they are not told apart."""
        told = self.wins if self.at_kl is None else self.at_kl
        return "" if self.p > 1 - LEVEL else "better" if told.mean > 0 else "worse"

    @property
    def sentence(self) -> str:
        """Return what can be said."""
        where = "in wins" if self.at_kl is None else "at equal KL"
        if not self.word:
            return f"{self.arm} and {self.other} are not told apart {where}."
        return f"{self.arm} is {self.word} than {self.other} {where}."


def gather(
    results: Sequence[Result], failed: dict[str, str], comparison: ComparisonConfig, sweeps: Sequence[Sweep] = ()
) -> Comparison:
    """Return the results by arm, and the KL at which they are compared."""
    arms: dict[str, list[Result]] = {}
    for result in results:
        arms.setdefault(result.arm, []).append(result)
    decide = {name: own for name, own in arms.items() if name not in comparison.controls} or arms
    shared = common_kl({name: [each.curve for each in own] for name, own in decide.items()})
    return Comparison(arms, failed, comparison.at_kl or shared, sweeps, comparison.weakened)


def verdicts(comparison: Comparison) -> list[Verdict]:
    """Return a verdict for each pair of arms with a seed in common, Holm-corrected over all of them."""
    seeds = {name: {each.seed for each in own} for name, own in comparison.results.items()}
    pairs = [pair for pair in itertools.combinations(seeds, 2) if seeds[pair[0]] & seeds[pair[1]]]
    found = [_compare(comparison, *pair) for pair in pairs]
    corrected = holm([(told or wins).p for told, wins in found])
    return [Verdict(*pair, *told, p) for pair, told, p in zip(pairs, found, corrected, strict=True)]


def over_reference(results: Sequence[Result]) -> Difference:
    """Return the win rate of an arm's last models over the reference, less one half."""
    ours, theirs = (np.stack([getattr(each, side) for each in results]) for side in ("rewards", "reference_rewards"))
    return of_prompts_and_seeds(win_differences(ours, theirs))


def at_same_kl(comparison: Comparison, arm: str) -> Difference | None:
    """Return the mean reward of an arm at the comparison's KL; None where a seed does not reach it."""
    rewards = [each.curve.at(comparison.at_kl) for each in comparison.results[arm]]
    known = [reward for reward in rewards if reward is not None]
    return of_seeds(known) if len(known) == len(rewards) else None


def arms_table(comparison: Comparison) -> Table:
    """Return a row an arm: how far it went, what it gained, what it cost; means over its seeds.

    The first row is the reference: what it says was measured beside every arm, and it trains nothing.
    """
    head = (
        "arm",
        "seeds",
        "reward at the end",
        "KL (nats)",
        f"reward at KL {comparison.at_kl:.2g}",
        "win rate over sft",
        "tokens a completion",
        "pairs",
        "completions",
        "tokens",
        "seconds",
    )
    rows = _reference_rows(comparison, len(head))
    for arm, own in comparison.results.items():
        ends = of_seeds([each.models[-1].reward for each in own])
        means = (np.mean([getattr(each, name) for each in own]) for name in ("pairs", "completions", "tokens"))
        rows.append(
            (
                arm,
                str(len(own)),
                interval(ends),
                f"{np.mean([each.curve.reach for each in own]):.2f}",
                interval(at_same_kl(comparison, arm)),
                interval(over_reference(own), plus=0.5),
                f"{np.mean([each.length for each in own]):.1f}",
                *(f"{mean:,.0f}" for mean in means),
                f"{np.mean([each.seconds for each in own]):.0f}",
            )
        )
    return Table(head, rows)


def verdicts_matrix(comparison: Comparison, found: Sequence[Verdict]) -> Table:
    """Return a row and a column an arm: whether the row's is better or worse than the column's."""
    turned = {"better": "worse", "worse": "better", "": ""}
    said = {(each.arm, each.other): each.word or "=" for each in found}
    said |= {(each.other, each.arm): turned[each.word] or "=" for each in found}
    rows = [(arm, *(said.get((arm, other), "") for other in comparison.results)) for arm in comparison.results]
    return Table(("", *comparison.results), rows, "Whether a row's arm is better than a column's; =: not told apart")


def verdicts_table(found: Sequence[Verdict]) -> Table:
    """Return a row for each pair of arms."""
    head = ("arms", "difference at equal KL", "win rate", "p (Holm)", "so")
    return Table(
        head,
        [
            (
                f"{each.arm} / {each.other}",
                interval(each.at_kl),
                interval(each.wins, plus=0.5),
                f"{each.p:.3f}",
                each.sentence,
            )
            for each in found
        ],
    )


def interval(difference: Difference | None, plus: float = 0.0, digits: int = 3) -> str:
    """Write a mean with its interval; a dash where there is none."""
    if difference is None:
        return "-"
    mean, low, high = (value + plus for value in difference[:3])
    if not np.isfinite(low):
        return f"{number(mean, digits)} (one seed)"
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _reference_rows(comparison: Comparison, columns: int) -> list[tuple[str, ...]]:
    """Return the row of the policy that every arm begins with; none where arms begin with different ones."""
    found: dict[int, set[float]] = {}
    for each in itertools.chain(*comparison.results.values()):
        found.setdefault(each.seed, set()).add(each.reference)
    if any(len(own) > 1 for own in found.values()):
        return []
    rewards = of_seeds([reward for own in found.values() for reward in own])
    return [("sft", str(len(found)), interval(rewards), "0.00", *["-"] * (columns - 4))]


def _compare(comparison: Comparison, one: str, other: str) -> tuple[Difference | None, Difference]:
    """Return how two arms differ: by reward at the same KL, seed by seed, and by wins of their last models."""
    left, right = ({each.seed: each for each in comparison.results[name]} for name in (one, other))
    seeds = sorted(left.keys() & right.keys())
    gaps = [
        (a, b)
        for seed in seeds
        if (a := left[seed].curve.at(comparison.at_kl)) is not None
        and (b := right[seed].curve.at(comparison.at_kl)) is not None
    ]
    told = of_seeds([a - b for a, b in gaps]) if len(gaps) == len(seeds) else None
    ours, theirs = (np.stack([side[seed].rewards for seed in seeds]) for side in (left, right))
    return told, of_prompts_and_seeds(win_differences(ours, theirs))
