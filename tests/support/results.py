"""Results of arms that are made up, for tests of what comes out of a comparison."""

import numpy as np

from tasks.comparison.arms import ComparisonConfig
from tasks.comparison.outcome import gather
from tasks.comparison.results import Model, Result

PROMPTS = 30


def result(arm, seed, gain, kl=4.0, noise=0.1):
    """Return a run that gains so much at so much KL, on a straight line from reward 1 at no KL."""
    random = np.random.default_rng([seed, len(arm)])
    models = [Model("step-5", kl / 2, 1 + gain / 2), Model("aligned", kl, 1 + gain + noise * random.normal())]
    theirs = np.random.default_rng(seed).normal(size=(PROMPTS, 4))
    ours = random.normal(size=(PROMPTS, 4)) + gain
    return Result(arm, seed, models, 1.0, ours, theirs, theirs, 100, 50, 1000, 2.0, 10.0)


def made(arms, seeds=5, **fields):
    """Return a comparison of arms, each with the further arguments of `result`."""
    asked = ComparisonConfig(base="x", arms={name: {} for name in arms}, seeds=tuple(range(seeds)), **fields)
    results = [result(name, seed, *own) for name, own in arms.items() for seed in range(seeds)]
    return gather(results, {}, asked)
