"""Rewards along a training: which of its models a held-out reward likes best, and whether it falls at the end.

A policy that pleases the reward that its pairs were selected by, and less and less one that they were not, is
over-optimised (arXiv:2210.10760). Both are compared prompt by prompt, in standard errors over prompts.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.training.snapshots import LAST

NOISE = 1.0
"""Standard errors by which a model may be below the best one and still be as good."""
Gains = dict[str, np.ndarray]
"""Name of a reward -> (prompts,) what a policy has gained over the reference; NaN: no reward."""


def in_order(names: Collection[str]) -> list[str]:
    """Return the models that were kept along a training by their steps, the last one at the end."""
    steps = sorted((name for name in names if name.startswith("step-")), key=lambda name: int(name[len("step-") :]))
    return [*steps, *(name for name in names if name == LAST)]


def gains(rows: pa.Table, policy: str, reference: str) -> Gains:
    """Return what a policy has gained over the reference in each reward, prompt by prompt.

    Args:
        rows: The samples of an evaluation.
        policy: Name of the policy.
        reference: Name of the reference.
    """
    means = rows.group_by(["policy", "reward_name", "prompt_id"]).aggregate([("reward", "mean")]).sort_by("prompt_id")

    def of(policy: str, reward: str) -> np.ndarray:
        own = means.filter(pc.and_(pc.equal(means["policy"], policy), pc.equal(means["reward_name"], reward)))
        found: np.ndarray = own["reward_mean"].to_numpy(zero_copy_only=False).astype(np.float64)
        return found

    rewards = sorted(means["reward_name"].unique().to_pylist())
    return {reward: of(policy, reward) - of(reference, reward) for reward in rewards}


def standard_errors(differences: np.ndarray) -> float:
    """Return the mean of some prompts' differences over its standard error; 0 where nothing differs.

    Args:
        differences: (prompts,) at least two.
    """
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / len(differences) ** 0.5
    return mean / error if error > 0 else float(np.inf * np.sign(mean)) if mean else 0.0


class Best(NamedTuple):
    """Which model along a training a reward likes best."""

    peak: int
    """Place of the highest mean gain."""
    earliest: int
    """Place of the first model that is not more than `NOISE` below it."""


def best_place(models: np.ndarray) -> Best:
    """Return which model is best, and the earliest that is as good within noise.

    Args:
        models: (models, prompts) gains in the order of the training, at least two prompts, none of them NaN.
    """
    peak = int(models.mean(axis=1).argmax())
    within = (standard_errors(models[peak] - own) <= NOISE for own in models)
    return Best(peak, next(place for place, is_good in enumerate(within) if is_good))


def complete(models: Sequence[np.ndarray]) -> np.ndarray:
    """Return (models, prompts) gains, without the prompts for which a model has none."""
    whole = np.stack(models)
    return whole[:, ~np.isnan(whole).any(axis=0)]


def falls(models: Sequence[Gains], names: Sequence[str], proxy: str, optimised: Collection[str]) -> dict[str, Any]:
    """Return how far each held-out reward has fallen since its best model, while the proxy rose.

    Args:
        models: Gains of the models along a training, the last one at the end.
        names: Their names.
        proxy: The reward that pairs were selected by.
        optimised: It, and the rewards that it is made of; all others are held out.

    Returns:
        Reward -> `after`: the model before the fall; `errors`: the lesser of the reward's fall and the proxy's rise
        from there to the end, in standard errors over prompts. Rewards of fewer than two prompts are left out.
    """
    found = {}
    for reward in sorted(models[0].keys() - {*optimised, proxy}):
        series = complete([own[name] for name in (reward, proxy) for own in models])
        if series.shape[1] < 2:
            continue
        held_out, optimum = series[: len(models)], series[len(models) :]
        peak = best_place(held_out).peak
        fall, rise = held_out[peak] - held_out[-1], optimum[-1] - optimum[peak]
        found[reward] = {"after": names[peak], "errors": min(standard_errors(fall), standard_errors(rise))}
    return found


def read_falls(
    curve: tuple[pa.Table, Mapping[str, Any]], end: tuple[pa.Table, Mapping[str, Any]], proxy: str, optimised: list[str]
) -> dict[str, Any]:
    """Return the falls along a training from the samples and the figures of two evaluations.

    Args:
        curve: Of the models that were kept along it.
        end: Of the aligned policy; it counts as the last model where the curve has none.
        proxy: The reward that pairs were selected by.
        optimised: The rewards that it is made of.
    """
    rows, figures = curve
    names = in_order(figures["policies"])
    models = [gains(rows, name, figures["reference"]) for name in names]
    if LAST not in names:
        names.append(LAST)
        models.append(gains(end[0], "aligned", end[1]["reference"]))
    shared = set.intersection(*(set(own) for own in models))
    kept = [{name: own[name] for name in shared} for own in models]
    return falls(kept, names, proxy, optimised) if proxy in shared else {}
