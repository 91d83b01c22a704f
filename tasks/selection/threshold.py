"""RS-DPO's own rule (arXiv:2402.10038, Algorithm 1): every ordered pair of one prompt whose preference is sure enough.

A pair is kept where its Bradley-Terry probability sigma((r_j - r_l) / tau) is above eta, that is, where its reward gap
r_j - r_l is above tau * log(eta / (1 - eta)).
"""

import math

import numpy as np
from pydantic import Field

from tasks.config.errors import ConfigurationError
from tasks.selection.pairs import Candidates, PairIndices, StrategySettings, no_pairs

BLOCK = 1 << 20
"""Most comparisons made at once: bounds their memory."""


class ThresholdSettings(StrategySettings):
    """RS-DPO: every pair whose preference is above eta."""

    tau: float = Field(1.0, gt=0)
    """Temperature of the reward gap, in units of reward (paper: 1)."""
    eta: float = Field(0.85, ge=0.5, lt=1)
    """Probability that chosen beats rejected, above which a pair is kept. Higher keeps fewer, clearer pairs; below 0.5
    a pair and its mirror image would both pass."""

    def explain_none(self) -> tuple[str, str]:
        """Return what the rule asks for, and what to change where no pair has it."""
        asked = gap_threshold(self.tau, self.eta)
        return (
            f"pairs.eta = {self.eta:g} and pairs.tau = {self.tau:g} ask for a gap above {asked:.4g}",
            "lower eta or tau, or raise sampling.temperature or max_new_tokens",
        )


def threshold_pairs(candidates: Candidates, settings: ThresholdSettings) -> PairIndices:
    """Return every pair with sigma((r_j - r_l) / tau) > eta."""
    return select_pairs(candidates.rewards, settings.tau, settings.eta)


def preference_prob(reward_gap: np.ndarray, tau: float) -> np.ndarray:
    """Return the Bradley-Terry probability sigma(reward_gap / tau) that the first completion is preferred.

    Args:
        reward_gap: Reward differences r_j - r_l, any shape.
        tau: Temperature in units of reward, > 0 (arXiv:2402.10038).

    Raises:
        ConfigurationError: tau is not positive.
    """
    _check(tau, 0.5)
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(reward_gap, np.float64) / tau))


def gap_threshold(tau: float, eta: float) -> float:
    """Return tau * log(eta / (1 - eta)), the reward gap above which a pair is kept, in units of reward.

    Raises:
        ConfigurationError: tau is not positive, or eta is not in [0.5, 1).
    """
    _check(tau, eta)
    return tau * math.log(eta / (1.0 - eta))


def select_pairs(rewards: np.ndarray, tau: float, eta: float) -> PairIndices:
    """Return every pair whose reward gap r_j - r_l is strictly above tau * log(eta / (1 - eta)).

    Args:
        rewards: (n, k) rewards of k completions of n prompts; NaN marks a missing sample.
        tau: Temperature in units of reward, > 0.
        eta: Threshold on the preference probability, 0.5 <= eta < 1.

    Returns:
        `(row, chosen, rejected)`: int arrays with one entry a pair, indices into `rewards`.

    Raises:
        ValueError: tau or eta is out of bounds, or rewards is not two-dimensional.
    """
    threshold = gap_threshold(tau, eta)
    rewards = _matrix(rewards)
    if rewards.shape[1] < 2:
        return no_pairs()
    found = [no_pairs()]
    step = max(1, BLOCK // rewards.shape[1] ** 2)
    for start in range(0, rewards.shape[0], step):
        row, chosen, rejected = _pairs_above(rewards[start : start + step], threshold)
        found.append(PairIndices(start + row, chosen, rejected))
    return PairIndices(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _pairs_above(rewards: np.ndarray, threshold: float) -> PairIndices:
    """Return the pairs of a block of prompts, comparing only what can be chosen: what beats its prompt's lowest reward.

    Places in the flattened (n, k) arrays, place // k being the row, are found faster than pairs of indices.
    """
    k = rewards.shape[1]
    columns = np.ascontiguousarray(rewards.T)  # a few long rows are reduced faster than many short ones
    low, high = np.fmin.reduce(columns), np.fmax.reduce(columns)
    with np.errstate(invalid="ignore"):  # inf - inf
        active = np.flatnonzero(high - low > threshold)
        rewards = rewards[active]
        above_low = np.flatnonzero(rewards - low[active, None] > threshold)
        pair = np.flatnonzero(rewards.ravel()[above_low, None] - rewards[above_low // k] > threshold)
    chosen, rejected = above_low[pair // k], pair % k
    return PairIndices(active[chosen // k], chosen % k, rejected)


def _matrix(rewards: np.ndarray) -> np.ndarray:
    rewards = np.asarray(rewards, np.float64)
    if rewards.ndim != 2:
        raise ValueError(
            f"rewards has shape {rewards.shape}, expected (n, k): one row a prompt, one column a completion"
        )
    return rewards


def _check(tau: float, eta: float) -> None:
    if not (tau > 0 and math.isfinite(tau)):
        raise ConfigurationError(f"pairs.tau = {tau} must be a positive number: it divides the reward gap")
    if not 0.5 <= eta < 1:
        raise ConfigurationError(
            f"pairs.eta = {eta} must be at least 0.5 and below 1: below 0.5 a pair and its mirror both pass"
        )
