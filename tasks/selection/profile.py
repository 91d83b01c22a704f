"""What a scored table looks like, whatever is selected from it: what the choice of tau, eta and k rests on. Pure numpy.

tau and eta are one axis: a pair is kept where its reward gap is above tau * log(eta / (1 - eta)).
"""

from typing import Any

import numpy as np

from tasks.selection.histogram import GrowingHistogram
from tasks.selection.pairs import Candidates, PairIndices
from tasks.selection.threshold import BLOCK, gap_threshold

TAUS = (0.25, 0.5, 0.8, 1.0, 1.2, 2.0, 4.0)
ETAS = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99)
"""The grid; what is configured comes to it. The paper's Table 3 has tau .8, 1 and 1.2, and eta .80, .85 and .90."""


class Profile:
    """Figures of a scored table that comes in parts, in constant memory."""

    def __init__(self, tau: float, eta: float) -> None:
        """Start with nothing counted; tau and eta are what is configured."""
        self.taus, self.etas = (sorted({own, *known}) for own, known in ((tau, TAUS), (eta, ETAS)))
        self.threshold = gap_threshold(tau, eta)
        self.edges = np.array(sorted({gap_threshold(t, e) for t in self.taus for e in self.etas} | {0.0}))
        self.above = np.zeros(self.edges.size, np.int64)
        """Pairs whose gap is above each edge."""
        self.gaps, self.spreads = GrowingHistogram(), GrowingHistogram()
        self.by_k: dict[int, np.ndarray] = {}
        """k -> prompts, their best rewards' sum, pairs above the configured threshold."""
        self.overall, self.within = Correlation(), Correlation()
        self.completions = self.distinct = self.ties = self.possible = self.longer = self.as_long = self.pairs = 0

    def add(self, candidates: Candidates, selected: PairIndices) -> None:
        """Count a part.

        Args:
            candidates: As the truncation rule leaves them.
            selected: The pairs that were selected from them.
        """
        rewards, k = candidates.rewards, candidates.rewards.shape[1]
        step = max(1, BLOCK // k**2)
        for start in range(0, len(rewards), step):
            block = slice(start, start + step)
            self._count_gaps(rewards[block], candidates.may_be_chosen[block])
        present = ~np.isnan(rewards)
        self.completions += int((candidates.texts >= 0).sum())
        self.distinct += _distinct(candidates.texts)
        self.spreads.add(_spreads(rewards))
        lengths = candidates.lengths.astype(np.float64)
        self.overall.add(rewards[present], lengths[present])
        self.within.add(_centred(rewards)[present], _centred(np.where(present, lengths, np.nan))[present])
        chosen, rejected = (candidates.lengths[selected.row, side] for side in (selected.chosen, selected.rejected))
        self.pairs += selected.row.size
        self.longer += int((chosen > rejected).sum())
        self.as_long += int((chosen == rejected).sum())

    def _count_gaps(self, rewards: np.ndarray, may_be_chosen: np.ndarray) -> None:
        """Count the gaps r_j - r_l of a block of prompts, (n, k) each."""
        k = rewards.shape[1]
        with np.errstate(invalid="ignore"):  # inf - inf
            gaps = rewards[:, :, None] - rewards[:, None, :]
        compared = np.triu(np.ones((k, k), bool), 1)
        self.possible += int((~np.isnan(gaps))[:, compared].sum())
        self.ties += int((gaps[:, compared] == 0).sum())
        gaps = np.where(may_be_chosen[:, :, None] & (gaps > 0), gaps, 0.0)
        positive = gaps[(gaps > 0) & np.isfinite(gaps)]
        self.gaps.add(positive)
        places = np.searchsorted(self.edges, gaps[gaps > 0], side="left")  # a gap equal to an edge is not above it
        self.above += np.bincount(places, minlength=self.edges.size + 1)[::-1].cumsum()[::-1][1:]
        for size in _sizes(k):
            best = np.fmax.reduce(rewards[:, :size], axis=1)
            any_ = ~np.isnan(best)
            pairs = (gaps[:, :size, :size] > self.threshold).sum()
            counts = np.array([any_.sum(), best[any_].sum(), pairs])
            self.by_k[size] = counts + self.by_k.get(size, 0)

    def stats(self) -> dict[str, Any]:
        """Return the figures; a share of nothing is None."""
        above = dict(zip(self.edges.tolist(), self.above.tolist(), strict=True))
        return {
            "unique_share": _share(self.distinct, self.completions),
            "tie_share": _share(self.ties, self.possible),
            "longer_chosen_share": _share(self.longer + 0.5 * self.as_long, self.pairs),
            "length_correlation": self.overall.value(),
            "length_correlation_within_prompt": self.within.value(),
            "gaps": self.gaps.stats(),
            "spreads": self.spreads.stats(),
            "gap_threshold": self.threshold,
            "grid": [
                {"tau": tau, "eta": eta, "gap": (gap := gap_threshold(tau, eta)), "pairs": above[gap]}
                for tau in self.taus
                for eta in self.etas
            ],
            "possible_pairs": self.possible,
            "k_curve": [
                {"k": k, "pairs": int(pairs), "best_reward": _share(best, prompts)}
                for k, (prompts, best, pairs) in sorted(self.by_k.items())
            ],
        }


class Correlation:
    """Pearson's correlation of two columns that come in parts."""

    def __init__(self) -> None:
        """Start without a row."""
        self.rows, self.means, self.products = 0, np.zeros(2), np.zeros((2, 2))

    def add(self, one: np.ndarray, other: np.ndarray) -> None:
        """Take rows, (rows,) each; the parts' moments are merged (Chan et al. 1979), so that no large sums cancel."""
        both = np.stack([one, other])[:, np.isfinite(one)]
        rows = both.shape[1]
        if not rows:
            return
        means = both.mean(axis=1)
        centred, moved = both - means[:, None], means - self.means
        total = self.rows + rows
        self.products += centred @ centred.T + np.outer(moved, moved) * self.rows * rows / total
        self.means += moved * rows / total
        self.rows = total

    def value(self) -> float | None:
        """Return the correlation; None where a column does not vary."""
        variances = np.diag(self.products)
        if not (variances > 1e-12 * self.rows).all():
            return None
        return _rounded(self.products[0, 1] / np.sqrt(variances.prod()))


def _sizes(k: int) -> list[int]:
    """Return 2, 4, 8, ... up to k, and k."""
    return sorted({min(2**power, k) for power in range(1, max(k, 2).bit_length() + 1)})


def _distinct(texts: np.ndarray) -> int:
    """Return how many different texts the rows have, added up; -1 is none."""
    ordered = np.sort(texts, axis=1)
    new = np.concatenate([ordered[:, :1] >= 0, (ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, 1:] >= 0)], axis=1)
    return int(new.sum())


def _centred(values: np.ndarray) -> np.ndarray:
    """Return values without their row's mean; NaN: left out."""
    present = ~np.isnan(values)
    counts = np.maximum(present.sum(axis=1, keepdims=True), 1)
    centred: np.ndarray = values - np.where(present, values, 0.0).sum(axis=1, keepdims=True) / counts
    return centred


def _spreads(rewards: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each row with two rewards at least."""
    rows = rewards[(np.isfinite(rewards).sum(axis=1) >= 2) & ~np.isinf(rewards).any(axis=1)]
    if not len(rows):
        return np.empty(0)
    spreads: np.ndarray = np.sqrt(np.nanmean(_centred(rows) ** 2, axis=1))
    return spreads


def _share(part: float, whole: float) -> float | None:
    return _rounded(part / whole) if whole else None


def _rounded(value: float) -> float:
    """Return a figure without the last bits, which depend on the order of the parts."""
    return float(f"{value:.9g}")
