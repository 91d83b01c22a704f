"""What the best of n completions by a reward is worth, over every subset of n. Pure numpy."""

import functools
import math

import numpy as np


def best_of(chosen_by: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return the expected worth of the best of 1, 2, ... k completions of a prompt, (k,).

    The mean over every subset of n, none drawn: the unbiased estimator of arXiv:2112.09332, appendix I. The completion
    of rank i of k, from below, is the best of C(i - 1, n - 1) of the C(k, n) subsets. Of completions that are equally
    good by the reward any may be the best, so that each counts as their mean.

    Args:
        chosen_by: (k,) rewards by which the best one is kept; NaN: kept only where all are.
        measured: (k,) what is measured.
    """
    _, ranks, counts = np.unique(
        np.where(np.isnan(chosen_by), -np.inf, chosen_by), return_inverse=True, return_counts=True
    )
    means: np.ndarray = np.bincount(ranks, measured) / counts
    worth: np.ndarray = _subsets(len(measured)) @ np.repeat(means, counts)
    return worth


def best_of_kl(n: int) -> float:
    """Return the KL of best of n from the policy, log n - (n - 1) / n nats (arXiv:2009.01325, appendix G.3).

    An upper bound where completions repeat (arXiv:2401.01879).
    """
    return math.log(n) - (n - 1) / n


@functools.lru_cache(maxsize=32)
def _subsets(k: int) -> np.ndarray:
    """Return the share of the subsets of n (row) whose best completion is that of rank i (column), (k, k)."""
    sizes = range(1, k + 1)
    return np.array([[math.comb(i - 1, n - 1) / math.comb(k, n) for i in sizes] for n in sizes])
