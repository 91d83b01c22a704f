"""Best of n at inference: what drawing n completions and keeping the best one by the reward model gains. Pure numpy.

A ceiling for training on rewards: it costs n times as much at every answer, and nothing before.
"""

import math

import numpy as np

from tasks.comparison.frontier import Curve


def best_of_n(chosen_by: np.ndarray, measured: np.ndarray) -> Curve:
    """Return the mean reward of the best of 1, 2, ... k completions against KL, log n - (n - 1) / n nats.

    The KL is that of arXiv:2112.09332, an upper bound where completions repeat (arXiv:2401.01879). The reward is the
    mean over every subset of n of the k completions, so that no draw is thrown away: the completion of rank i of k,
    from below, is the best of C(i - 1, n - 1) of the C(k, n) subsets.

    Args:
        chosen_by: (prompts, k) rewards by which the best one is kept; NaN: never kept.
        measured: (prompts, k) rewards that are measured; NaN: left out with its prompt.
    """
    k = measured.shape[1]
    order = np.argsort(np.where(np.isnan(chosen_by), -np.inf, chosen_by), axis=1, kind="stable")
    ranked = np.take_along_axis(measured, order, axis=1)
    ranked = ranked[~np.isnan(ranked).any(axis=1)]
    sizes = range(1, k + 1)
    weights = np.array([[math.comb(i - 1, n - 1) / math.comb(k, n) for i in sizes] for n in sizes])
    return Curve(np.array([math.log(n) - (n - 1) / n for n in sizes]), (ranked @ weights.T).mean(0))
