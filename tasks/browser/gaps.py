"""How many pairs RS-DPO's rule would keep at any tau and eta, told from reward gaps that were sorted once. Pure numpy.

A pair is kept where its reward gap is strictly above tau * log(eta / (1 - eta)) (arXiv:2402.10038, and
tasks/selection/threshold.py). Of m sorted gaps, a binary search finds how many are.
"""

from typing import NamedTuple

import numpy as np

from tasks.selection.filters import PassRate, Rip, left_out
from tasks.selection.pairs import Candidates
from tasks.selection.threshold import gap_threshold


class Rule(NamedTuple):
    """What a selection has beside tau and eta."""

    truncated: str = "drop"
    """`keep`, `drop` or `never_chosen`, as `pairs.truncated`."""
    most: int | None = None
    """Most pairs of a prompt, as `pairs.max_pairs_per_prompt`."""
    rip: Rip = Rip()
    """Which prompts are left out, as `pairs.rip`."""
    pass_rate: PassRate | None = None
    """Which prompts are left out, as `pairs.pass_rate`."""


class Kept(NamedTuple):
    """What a threshold keeps."""

    pairs: int
    prompts: int
    """Prompts with a pair."""
    of_prompts: int
    possible: int
    """Pairs of completions of one prompt."""

    @property
    def acceptance_rate(self) -> float:
        """Return kept over possible pairs."""
        return self.pairs / self.possible if self.possible else 0.0


class Gaps:
    """The reward gaps of a run's pairs: each above 0, and at most `rule.most` of a prompt, the widest."""

    def __init__(self, rule: Rule) -> None:
        """Start without any."""
        self.rule = rule
        self.prompts = self.possible = 0
        self._gaps, self._widest = [np.empty(0)], [np.empty(0)]

    def add(self, candidates: Candidates) -> None:
        """Add the pairs of some prompts, as `select` of tasks/selection/strategies.py sees them."""
        cut = candidates.truncated & (self.rule.truncated != "keep")
        rewards = np.where(cut, np.nan, candidates.rewards) if self.rule.truncated == "drop" else candidates.rewards
        with np.errstate(invalid="ignore"):  # inf - inf
            gaps = rewards[:, :, None] - rewards[:, None, :]
        texts, may_be_chosen = candidates.texts, candidates.may_be_chosen & ~cut
        seen = candidates._replace(rewards=rewards, may_be_chosen=may_be_chosen)
        may_be = may_be_chosen[:, :, None] & (texts[:, :, None] != texts[:, None, :])
        for out in left_out(seen, self.rule.rip, self.rule.pass_rate).values():
            may_be &= ~out[:, None, None]
        gaps = np.where(may_be & (gaps > 0), gaps, 0.0).reshape(len(rewards), -1)
        present = (~np.isnan(candidates.rewards)).sum(axis=1)
        self.prompts += len(rewards)
        self.possible += int((present * (present - 1) // 2).sum())
        widest = gaps.max(axis=1)
        if self.rule.most is not None and self.rule.most < gaps.shape[1]:
            gaps = np.partition(gaps, -self.rule.most, axis=1)[:, -self.rule.most :]
        self._widest.append(widest[widest > 0])
        self._gaps.append(gaps[gaps > 0])

    def finish(self) -> None:
        """Sort what was added; afterwards `count` may be called."""
        self._gaps, self._widest = ([np.sort(np.concatenate(found))] for found in (self._gaps, self._widest))

    def count(self, tau: float, eta: float) -> Kept:
        """Return what tau and eta would keep.

        Raises:
            ConfigurationError: tau or eta is out of bounds.
        """
        threshold = gap_threshold(tau, eta)
        pairs, prompts = (
            found[0].size - int(np.searchsorted(found[0], threshold, "right")) for found in (self._gaps, self._widest)
        )
        return Kept(pairs, prompts, self.prompts, self.possible)
