"""What monitors measure: functions of the stats that a stage has recorded. Pure Python.

Each returns a value for each thing that is judged: by the name of a policy or of a reward, or under "" where there is
one thing only. What an older version has not recorded, or what cannot be measured, is left out.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

Stats = Mapping[str, Any]
Values = dict[str, float]
Measure = Callable[[Stats], Values]


def recorded(*path: str) -> Measure:
    """Return a measure of a figure that stands in the stats under a path."""

    def measure(stats: Stats) -> Values:
        value: Any = stats
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return {} if value is None else {"": float(value)}

    return measure


def trained(name: str) -> Measure:
    """Return a measure of a figure that every training has: a manifest's null stands for one that is no number."""

    def measure(stats: Stats) -> Values:
        return {"": math.nan if stats[name] is None else float(stats[name])} if name in stats else {}

    return measure


def share_with_pair(stats: Stats) -> Values:
    """Measure the share of prompts that have a pair."""
    return {"": 1 - stats["prompts_without_pair"] / stats["prompts"]} if stats.get("prompts") else {}


def of_policies(figure: Callable[[Stats, Stats], float | None]) -> Measure:
    """Return a measure of each policy but the reference: a figure of its own stats and the reference's."""

    def measure(stats: Stats) -> Values:
        policies, reference = stats["policies"], stats["reference"]
        found = {name: figure(own, policies[reference]) for name, own in policies.items() if name != reference}
        return {name: value for name, value in found.items() if value is not None}

    return measure


def ratio(name: str) -> Measure:
    """Return a measure of each policy's figure over the reference's."""

    def figure(own: Stats, reference: Stats) -> float | None:
        return own[name] / reference[name] if reference.get(name) and name in own else None

    return of_policies(figure)


def rise(name: str) -> Measure:
    """Return a measure of each policy's figure less the reference's."""
    return of_policies(lambda own, reference: own[name] - reference[name] if name in own else None)


def divergence(name: str) -> Measure:
    """Return a measure of each policy's KL from the reference."""
    return of_policies(lambda own, _: own.get("divergence", {}).get(name))


def perplexity_ratio(stats: Stats) -> Values:
    """Measure the reference's perplexity of each policy's completions over that of its own."""
    found = rise("reference_nll")(stats)
    return {name: math.exp(min(value, 100.0)) for name, value in found.items()}


def least_win_rate(stats: Stats) -> Values:
    """Measure the lower end of the 95% interval of each win rate, by policy and reward."""
    return {name: rate["low"] for name, rate in _win_rates(stats, "win_rates").items()}


def win_rate_of_truncated(stats: Stats) -> Values:
    """Measure how much of each win rate is gone where truncated completions do not count."""
    finished = _win_rates(stats, "finished_win_rates")
    found = _win_rates(stats, "win_rates").items()
    return {name: rate["win_rate"] - finished[name]["win_rate"] for name, rate in found if name in finished}


def win_rate_of_proxy(stats: Stats) -> Values:
    """Measure how far each win rate by the reward that was optimised is above those by the other rewards."""
    optimised = stats.get("optimised", [OPTIMISED])  # the reward that pairs are selected by, then what it is made of
    rates = {tuple(name.split(", ", 1)): rate["win_rate"] for name, rate in _win_rates(stats, "win_rates").items()}
    proxies = {policy: rate for (policy, reward), rate in rates.items() if reward == optimised[0]}
    return {
        f"{policy}, {reward}": proxies[policy] - rate
        for (policy, reward), rate in rates.items()
        if policy in proxies and reward not in optimised
    }


def fall_of_held_out(stats: Stats) -> Values:
    """Measure how far each held-out reward has fallen along the training, by its name and the model before the fall."""
    return {f"{name}, best after {own['after']}": own["errors"] for name, own in stats.get("falls", {}).items()}


OPTIMISED = "reward_model"
"""Name of the reward that pairs are selected by, where an evaluation does not say."""


def _win_rates(stats: Stats, kind: str) -> dict[str, Stats]:
    """Return the win rates by "policy, reward" that could be measured."""
    return {
        f"{policy}, {reward}": rate
        for policy, own in stats["policies"].items()
        for reward, rate in own.get(kind, {}).items()
        if rate is not None
    }
