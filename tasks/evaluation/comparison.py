"""How policies compare on the same prompts: the figures of each, and its win rates against a reference. Pure numpy."""

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from tasks.config.evaluation import EvaluationConfig
from tasks.evaluation.drawn import Drawn
from tasks.evaluation.intervals import bootstrap_interval


def win_rate(ours: np.ndarray, theirs: np.ndarray, bootstrap_samples: int, seed: int) -> dict[str, Any] | None:
    """Compare the rewards of two policies on the same prompts.

    Args:
        ours: (n, k) rewards, one row a prompt; NaN: left out.
        theirs: (n, m) rewards of the other policy for the same prompts; NaN: left out.
        bootstrap_samples: Resamples of the prompts behind the interval.
        seed: Seed of the resampling.

    Returns:
        `win_rate`: probability that a completion of ours beats one of theirs for the same prompt, a tie counting half;
        `low`, `high`: its 95% bootstrap interval over prompts; `ties`: share of equal rewards; `prompts`: how many have
        a completion on both sides. None where no prompt has.
    """
    ours, theirs = ours[:, :, None], theirs[:, None, :]
    pairs = (~np.isnan(ours) & ~np.isnan(theirs)).sum((1, 2))
    compared = pairs > 0
    if not compared.any():
        return None
    above, equal = ((won.sum((1, 2)) / np.maximum(pairs, 1))[compared] for won in (ours > theirs, ours == theirs))
    wins = above + 0.5 * equal
    low, high = bootstrap_interval(wins, np.mean, bootstrap_samples, seed)
    figures = {"win_rate": float(wins.mean()), "low": low, "high": high, "ties": float(equal.mean())}
    return {**figures, "prompts": int(compared.sum())}


def distinct_2(texts: list[str]) -> float:
    """Return the number of different pairs of neighbouring words over the number of such pairs (arXiv:1510.03055)."""
    pairs: Counter[tuple[str, str]] = Counter()
    for text in texts:
        words = text.split()
        pairs.update(itertools.pairwise(words))
    return len(pairs) / pairs.total() if pairs else 0.0


def repetition(text: str, n: int = 3) -> float:
    """Return the share of a text's n-grams of words that it has had before; 0 where it has none.

    1 - distinct-n, within one text (arXiv:1908.04319, section 6): 0 in clean prose, near 1 where a few words go round.
    """
    words = text.split()
    grams = list(zip(*(words[start:] for start in range(n)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def policy_stats(drawn: Drawn) -> dict[str, Any]:
    """Return a policy's own figures: `rewards` of all its completions, and `finished` without the truncated ones.

    A truncated completion's reward is for half an answer.
    """
    texts = drawn.rows["completion"].to_pylist()
    return {
        "completions": drawn.rows.num_rows,
        "mean_tokens": float(drawn.rows["num_tokens"].to_numpy().mean()),
        "distinct_2": distinct_2(texts),
        "repetition": float(np.mean([repetition(text) for text in texts])),
        "truncated": int(drawn.truncated.sum()),
        "truncation_rate": float(drawn.truncated.mean()),
        "rewards": _moments(drawn.rewards),
        "finished": _moments(drawn.finished()),
    }


def compare(drawn: Mapping[str, Drawn], reference: str, evaluation: EvaluationConfig) -> dict[str, Any]:
    """Return the figures of each policy by name; of all but the reference, the win rates against it too.

    `win_rates` and `finished_win_rates` are by reward. In the latter a pair of completions counts where neither is
    truncated, and a prompt where it has such a pair.
    """
    figures = {name: policy_stats(own) for name, own in drawn.items()}
    theirs = drawn[reference]
    for name, ours in drawn.items():
        if name != reference:
            figures[name]["win_rates"] = _win_rates(ours.rewards, theirs.rewards, evaluation)
            figures[name]["finished_win_rates"] = _win_rates(ours.finished(), theirs.finished(), evaluation)
    return figures


def _moments(rewards: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | None]]:
    """Return mean and standard deviation of each reward where it is not left out; None where it always is."""
    kept = {name: values[~np.isnan(values)] for name, values in rewards.items()}
    none: dict[str, float | None] = {"mean": None, "std": None}
    return {
        name: {"mean": float(values.mean()), "std": float(values.std())} if values.size else none
        for name, values in kept.items()
    }


def _win_rates(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], evaluation: EvaluationConfig
) -> dict[str, dict[str, Any] | None]:
    """Return the win rate by each reward."""
    k, samples, seed = evaluation.k, evaluation.bootstrap_samples, evaluation.seed
    return {name: win_rate(ours[name].reshape(-1, k), theirs[name].reshape(-1, k), samples, seed) for name in ours}
