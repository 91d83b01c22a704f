"""Best of n at inference: what drawing n completions and keeping the best one by the reward model gains. Pure numpy.

A ceiling for training on rewards: it costs n times as much at every answer, and nothing before.
"""

import numpy as np

from tasks.comparison.frontier import Curve
from tasks.rewards.best_of import best_of, best_of_kl


def best_of_n(chosen_by: np.ndarray, measured: np.ndarray) -> Curve:
    """Return the mean reward of the best of 1, 2, ... k completions against KL, log n - (n - 1) / n nats.

    Args:
        chosen_by: (prompts, k) rewards by which the best one is kept; NaN: never kept.
        measured: (prompts, k) rewards that are measured; NaN: left out with its prompt.
    """
    known = ~np.isnan(measured).any(axis=1)
    rows = zip(chosen_by[known], measured[known], strict=True)
    reward = np.mean([best_of(by, worth) for by, worth in rows], axis=0)
    return Curve(np.array([best_of_kl(n) for n in range(1, measured.shape[1] + 1)]), reward)
