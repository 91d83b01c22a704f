"""The reward that pairs are selected by, of what policies say, where it is made of several."""

from collections.abc import Mapping

import numpy as np

from tasks.config.rewards import COMBINED
from tasks.evaluation.drawn import Drawn
from tasks.selection.combination import Columns, combine
from tasks.selection.terms import Combination
from tasks.store.artifacts import Artifact


def with_combined(drawn: Mapping[str, Drawn], combined: Artifact, k: int) -> dict[str, Drawn]:
    """Return what policies say, with the combined reward beside the others.

    What was fitted on the table that pairs are selected from counts here too. A scale within a prompt is one among the
    completions of all policies.

    Args:
        drawn: Name of a policy -> its completions, with every reward.
        combined: The table of combined rewards.
        k: Completions a prompt and policy.
    """
    combination = Combination.model_validate(combined.stats["combination"])

    def pooled(values: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([own.reshape(-1, k) for own in values], axis=1)

    names = next(iter(drawn.values())).rewards
    rewards = {name: pooled([own.rewards[name] for own in drawn.values()]) for name in names}
    lengths = pooled([own.rows["num_tokens"].to_numpy() for own in drawn.values()])
    found = combine(combination, Columns(rewards, lengths), combined.stats["fits"]).reward
    parts = np.split(found, len(drawn), axis=1)
    return {
        name: own._replace(rewards={**own.rewards, COMBINED: part.ravel()})
        for (name, own), part in zip(drawn.items(), parts, strict=True)
    }
