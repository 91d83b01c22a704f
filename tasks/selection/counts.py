"""What is recorded of a pair selection: counts and quantiles, in constant memory."""

from typing import Any

import numpy as np

from tasks.selection.filters import left_out
from tasks.selection.pairs import Candidates, PairIndices
from tasks.selection.profile import Profile
from tasks.selection.strategies import PairsConfig, admitted


class PairCounts:
    """Counts over all parts, in constant memory."""

    SAMPLE = 8192

    def __init__(self, config: PairsConfig) -> None:
        """Start at zero."""
        self.config, self.profile = config, Profile(config.tau, config.eta)
        self.pairs = self.possible = self.prompts = self.active = self.completions = self.truncated = 0
        self.left_out: dict[str, int] = {}
        """Reason -> prompts; a reason for each filter that is set."""
        self.before_max_pairs: int | None = None
        """Pairs before `max_pairs`, where that is set."""
        self._gaps = np.empty(0)
        self._every = 1

    def add(self, candidates: Candidates, selected: PairIndices) -> None:
        """Count a part: its candidates, before the truncation rule, and the pairs that were selected from them."""
        seen = admitted(candidates, self.config)
        self.profile.add(seen, selected)
        for reason, out in left_out(seen, self.config.rip, self.config.pass_rate).items():
            self.left_out[reason] = self.left_out.get(reason, 0) + int(out.sum())
        rewards = candidates.rewards
        present = (~np.isnan(rewards)).sum(axis=1)
        first = -self.prompts % self._every  # of the prompts in the sample, which is spaced evenly over all parts
        self.prompts += present.size
        self.completions += int(present.sum())
        self.truncated += int(candidates.truncated.sum())
        self.possible += int((present * (present - 1) // 2).sum())
        self.pairs += selected.row.size
        self.active += np.unique(selected.row).size
        widest_gaps = np.nan_to_num(np.fmax.reduce(rewards, axis=1) - np.fmin.reduce(rewards, axis=1))
        self._gaps = np.concatenate([self._gaps, widest_gaps[first :: self._every]])
        while self._gaps.size > self.SAMPLE:
            self._gaps, self._every = self._gaps[::2], 2 * self._every

    def quantiles(self) -> dict[str, float]:
        """Return quantiles of each prompt's widest reward gap, from an even sample of the prompts."""
        values = np.quantile(self._gaps, [0.1, 0.5, 0.9, 1.0]) if self._gaps.size else np.zeros(4)
        return {name: round(float(value), 6) for name, value in zip(("10%", "50%", "90%", "max"), values, strict=True)}

    def stats(self) -> dict[str, Any]:
        """Return what the manifest records; nothing of filters and of `max_pairs` where they are not set."""
        optional = {"left_out_prompts": self.left_out or None, "pairs_before_max_pairs": self.before_max_pairs}
        return {
            "prompts": self.prompts,
            "prompts_without_pair": self.prompts - self.active,
            "completions": self.completions,
            "truncated_completions": self.truncated,
            "possible_pairs": self.possible,
            "acceptance_rate": self.pairs / self.possible if self.possible else 0.0,
            "widest_gap_quantiles": self.quantiles(),
            "profile": self.profile.stats(),
            **{name: value for name, value in optional.items() if value is not None},
        }

    def explain_none(self) -> str:
        """Return why there is no pair, and what to change."""
        (rule, remedy), truncated = self.config.explain_none(), self.config.truncated
        if self.truncated == self.completions and truncated != "keep":
            remedy = f"all are truncated: raise sampling.max_new_tokens, or set pairs.truncated = {truncated} to keep"
        if out := sum(self.left_out.values()):
            rule, remedy = f"{rule}, in prompts that pairs.rip and pairs.pass_rate leave", f"{remedy}, or loosen these"
        left = f", {out} prompts were left out" if out else ""
        return (
            f"no pair was selected from {self.completions} completions of {self.prompts} prompts, of which "
            f"{self.truncated} were truncated{left}: {rule}, and the prompts' widest gaps have the quantiles "
            f"{self.quantiles()}; {remedy}"
        )
