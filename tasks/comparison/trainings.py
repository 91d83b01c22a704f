"""How the trainings of an arm went, over its seeds: what DPO logged, and the reward gaps of its pairs. Pure numpy."""

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.comparison.frontier import POINTS, Band, band_of
from tasks.comparison.results import Result

ACCURACY, MARGIN = "rewards/accuracies", "rewards/margins"
BINS = 40


def along_training(results: Sequence[Result], metric: str) -> Band | None:
    """Return a logged metric against the share of the training that is done; None where a seed has not logged it.

    Trainings of different lengths are put on one axis: step / last step, from where every seed has a value.
    """
    logs = [np.array(each.log.get(metric, ()), np.float64).reshape(-1, 2) for each in results]
    if not logs or any(len(log) < 2 or not np.isfinite(log).all() for log in logs):
        return None
    shares = [log[:, 0] / log[-1, 0] for log in logs]
    at = np.linspace(max(share[0] for share in shares), 1, POINTS)
    return band_of(at, np.array([np.interp(at, share, log[:, 1]) for share, log in zip(shares, logs, strict=True)]))


def gap_densities(arms: Mapping[str, Sequence[Result]]) -> dict[str, Band]:
    """Return the density of the reward gaps that each arm trains on, over bins that all arms share.

    Arms that train on the same pairs with every seed are one, named by all of them.
    """
    gaps = {name: [each.gaps for each in own] for name, own in arms.items() if all(each.gaps.size for each in own)}
    if not gaps:
        return {}
    every = np.concatenate([seed for own in gaps.values() for seed in own])
    edges = np.linspace(every.min(), every.max() if every.max() > every.min() else every.min() + 1, BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    named: dict[bytes, tuple[list[str], Band]] = {}
    for name, own in gaps.items():
        densities = np.array([np.histogram(seed, edges, density=True)[0] for seed in own])
        content = b"".join(np.sort(seed).tobytes() for seed in own)
        named.setdefault(content, ([], band_of(middles, densities)))[0].append(name)
    return {_joined(names): own for names, own in named.values()}


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more of the same pairs"
