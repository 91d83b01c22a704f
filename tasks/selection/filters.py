"""Which prompts give no pair, whatever the strategy: by their best and worst completion, and by their pass rate."""

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from tasks.config.sections import Section
from tasks.selection.pairs import Candidates, best_of


class Rip(Section):
    """Prompts with a good worst completion stay: RIP, rejecting instruction preferences (arXiv:2501.18578).

    The paper's three measures of a prompt are r(x, y_l), the length of y_l, and r(x, y_w) - r(x, y_l), y_w being the
    completion of the highest reward and y_l that of the lowest. It keeps a prompt where the first two are high enough
    and the third is low enough, with quantiles of the data as bounds; here bounds are in units of reward and in tokens.
    """

    least_rejected_reward: float | None = None
    """Lowest reward of a prompt's worst completion. Null: any."""
    least_rejected_length: int | None = Field(None, ge=1)
    """Fewest tokens of a prompt's worst completion. Null: any."""
    most_gap: float | None = Field(None, gt=0)
    """Widest reward gap between a prompt's best completion and its worst. Null: any."""


class PassRate(Section):
    """Prompts that are neither too hard nor too easy stay: by the share of their completions that pass."""

    at: float
    """A completion passes with a reward above this one."""
    least: float = Field(0.0, ge=0, le=1)
    """Lowest share of a prompt's completions that pass."""
    most: float = Field(1.0, ge=0, le=1)
    """Highest share of a prompt's completions that pass."""

    @model_validator(mode="after")
    def _leaves_some_out(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least = {self.least:g} must be at most most = {self.most:g}: no share is between them")
        if (self.least, self.most) == (0.0, 1.0):
            raise ValueError("least = 0 and most = 1 leave no prompt out: set one of them, or leave pass_rate away")
        return self


def left_out(candidates: Candidates, rip: Rip, pass_rate: PassRate | None) -> dict[str, np.ndarray]:
    """Return the prompts that are left out, reason -> (n,) bool, each under the first reason that holds.

    A prompt without a reward is not left out: it has no pair anyway. Of equal rewards, the first one is the worst.

    Args:
        candidates: As the truncation rule leaves them: a completion that it drops has no reward.
        rip: Bounds of the best and the worst completion; what is None bounds nothing.
        pass_rate: Bounds of the share that passes; None: any share.
    """
    found: dict[str, np.ndarray] = {}
    rows, rewards = np.arange(len(candidates.rewards)), candidates.rewards
    worst = np.where(np.isnan(rewards), np.inf, rewards).argmin(axis=1)
    lowest = rewards[rows, worst]  # NaN where there is no reward, and then below and above nothing
    if rip.least_rejected_reward is not None:
        found["rejected_reward"] = lowest < rip.least_rejected_reward
    if rip.least_rejected_length is not None:
        found["rejected_length"] = (candidates.lengths[rows, worst] < rip.least_rejected_length) & ~np.isnan(lowest)
    if rip.most_gap is not None:
        best = best_of(candidates)
        gap = np.where(candidates.may_be_chosen[rows, best], rewards[rows, best], np.nan) - lowest
        found["reward_gap"] = gap > rip.most_gap
    if pass_rate is not None:
        known = (~np.isnan(rewards)).sum(axis=1)
        share = (rewards > pass_rate.at).sum(axis=1) / np.maximum(known, 1)
        found["pass_rate"] = ((share < pass_rate.least) | (share > pass_rate.most)) & (known > 0)
    before = np.zeros(len(rows), bool)
    for reason, out in found.items():
        found[reason] = out & ~before
        before |= out
    return found
