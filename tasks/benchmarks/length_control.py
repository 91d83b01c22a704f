"""A win rate as it were if both answers had one length (length-controlled AlpacaEval, arXiv:2404.04475). Pure.

The probability that the judge prefers the model is fitted by a logistic regression, and taken where delta is 0:

    P = sigma(theta + phi * tanh(delta / std(delta)))        length-controlled win rate = sigma(theta)

delta: characters of the reference answer less those of the model's. As in the authors' code, both weights have an L1
penalty, whose strength is chosen by five-fold cross-validation. Two things are left out. The authors have a third term,
the difficulty of an instruction, which they have fitted on many models at once: one model alone cannot tell it from its
own wins. And they add rows of two gamed versions of the reference model, which hold phi back.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from tasks.evaluation.intervals import Statistic

STRENGTHS = np.logspace(-4, 4, 10)
"""Weights of the likelihood against the penalty that are tried: scikit-learn's `Cs=10`, as in the authors' code."""
FOLDS = 5
LEAST = 100
"""Fewest comparisons: with a handful the penalty decides, and the rate becomes a half."""


class Fit(NamedTuple):
    """What was fitted."""

    theta: float
    """Log-odds of a win at equal lengths."""
    phi: float
    """What a shorter answer changes; 0 where all lengths differ alike."""
    strength: float
    """Weight of the likelihood that cross-validation chose."""

    @property
    def win_rate(self) -> float:
        """Return the length-controlled win rate, in [0, 1]."""
        return float(_sigma(np.array(self.theta)))


def length_controlled(wins: np.ndarray, delta: np.ndarray) -> Fit:
    """Return the regression behind the length-controlled win rate.

    Args:
        wins: (n,) what the model wins, in [0, 1]: a probability, or 0, 0.5 for a tie, and 1.
        delta: (n,) characters of the reference answer less those of the model's.

    Raises:
        ValueError: There are fewer than `LEAST` rows.
    """
    if len(wins) < LEAST:
        raise ValueError(f"{len(wins)} comparisons must be at least {LEAST}: with fewer the penalty decides")
    rows = features(delta)
    strength = choose_strength(rows, wins)
    theta, phi = fit(rows, wins, strength)
    return Fit(float(theta), float(phi), strength)


def features(delta: np.ndarray) -> np.ndarray:
    """Return the rows of the regression, (n, 2): 1 and tanh(delta / std(delta)); 0 where all differences are equal."""
    spread = float(np.std(delta, ddof=1)) if len(delta) > 1 else 0.0
    return np.stack([np.ones(len(delta)), np.tanh(delta / spread) if spread else np.zeros(len(delta))], axis=1)


def choose_strength(rows: np.ndarray, wins: np.ndarray) -> float:
    """Return the strength whose fits to four fifths of the rows lose least on the other fifth."""
    fold = np.random.default_rng(0).permutation(len(rows)) % FOLDS  # rows may come in a pattern of their own

    def lost(strength: float) -> float:
        kept = (fit(rows[fold != one], wins[fold != one], strength) for one in range(FOLDS))
        return float(sum(_losses(rows[fold == one], wins[fold == one], w).mean() for one, w in enumerate(kept)))

    return float(min(STRENGTHS, key=lost))


def fit(rows: np.ndarray, wins: np.ndarray, strength: float) -> np.ndarray:
    """Return the weights w that minimise |w|_1 + strength * sum of cross-entropies.

    |w|_1 has a kink, so w = up - down with both parts at least 0 (their sum is |w|_1 where one of them is 0).
    """
    terms = rows.shape[1]

    def objective(parts: np.ndarray) -> tuple[float, np.ndarray]:
        weights = parts[:terms] - parts[terms:]
        slope = rows.T @ (_sigma(rows @ weights) - wins) * strength
        value = parts.sum() + strength * _losses(rows, wins, weights).sum()
        return value / scale, np.concatenate([1 + slope, 1 - slope]) / scale

    scale = 1 + strength * len(rows)  # the loss of a row, so that one tolerance fits every strength
    exact: dict[str, float] = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000}
    found = minimize(
        objective, np.zeros(2 * terms), jac=True, method="L-BFGS-B", bounds=[(0, None)] * 2 * terms, options=exact
    )
    weights: np.ndarray = found.x[:terms] - found.x[terms:]
    return weights


def controlled_statistic(strength: float) -> Statistic:
    """Return a statistic for `bootstrap_interval`: resampled rows of (win, delta) -> length-controlled win rates."""

    def refit(rows: np.ndarray, /, *, axis: int) -> np.ndarray:
        thetas = [fit(features(sample[:, 1]), sample[:, 0], strength)[0] for sample in rows]
        return _sigma(np.array(thetas))

    return refit


def _losses(rows: np.ndarray, wins: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each row: log(1 + e^z) - p z."""
    logits = rows @ weights
    losses: np.ndarray = np.logaddexp(0, logits) - wins * logits
    return losses


def _sigma(logits: np.ndarray) -> np.ndarray:
    probabilities: np.ndarray = np.exp(-np.logaddexp(0, -logits))
    return probabilities
