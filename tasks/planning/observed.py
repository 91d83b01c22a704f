"""What the prompts of a pilot have: pairs at some thresholds, tokens, different completions. One number a prompt."""

from typing import NamedTuple

import numpy as np

from tasks.pipeline.configuration import Config
from tasks.planning.estimates import Estimate, total
from tasks.rewards.candidates import COLUMNS, gather
from tasks.rewards.scored import read_scored
from tasks.selection.pairs import Candidates
from tasks.selection.profile import Profile
from tasks.selection.strategies import PairsConfig, admitted, select
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store

PAIRS, WITH_PAIR, DIFFERENT = "pairs", "prompts with a pair", "different completions"
TOKENS, IN_PAIRS = "sampled tokens", "completions in pairs"
NEIGHBOURS = 2
"""Thresholds on either side of the configured one."""


class Observed(NamedTuple):
    """Numbers a prompt of the pilot, by name, (prompts,) each, and what a prompt can have at most of each."""

    values: dict[str, np.ndarray]
    most: dict[str, float]

    def totals(self, prompts: int) -> dict[str, Estimate]:
        """Return what all of so many prompts will have."""
        return {name: total(values, prompts, self.most[name]) for name, values in self.values.items()}


def above(tau: float, eta: float) -> str:
    """Return what the pairs above a threshold are called, as many as there are before `max_pairs_per_prompt`."""
    return f"pairs above tau {tau:g}, eta {eta:g}"


def neighbours(pairs: PairsConfig) -> list[float]:
    """Return the etas next to the configured one, and itself, in order; none where no threshold is asked for."""
    if pairs.strategy != "threshold":
        return []
    etas = Profile(pairs.tau, pairs.eta).etas
    place = etas.index(pairs.eta)
    return etas[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1]


def observe(store: Store, completions: Artifact, rewards: Artifact, config: Config) -> Observed:
    """Return what each prompt of a scored table has."""
    rows: list[dict[str, float]] = []
    for drawn, scored in read_scored(store, completions, rewards, COLUMNS):
        candidates = gather(drawn, scored)
        rows += [_of_prompt(_row(candidates, row), config.pairs) for row in range(len(candidates.rewards))]
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return Observed(values, {name: _most(name, config) for name in values})


def _row(candidates: Candidates, row: int) -> Candidates:
    """Return the candidates of one prompt."""
    own = slice(row, row + 1)
    return candidates._replace(
        prompt_ids=candidates.prompt_ids[own],
        rewards=candidates.rewards[own],
        truncated=candidates.truncated[own],
        lengths=candidates.lengths[own],
        texts=candidates.texts[own],
        may_be_chosen=candidates.may_be_chosen[own],
        terms={name: values[own] for name, values in candidates.terms.items()},
    )


def _of_prompt(candidates: Candidates, pairs: PairsConfig) -> dict[str, float]:
    """Return what one prompt has, counted as pair selection counts it."""
    selected, profile = select(candidates, pairs), Profile(pairs.tau, pairs.eta)
    profile.add(admitted(candidates, pairs), selected)
    points = {(point["tau"], point["eta"]): point["pairs"] for point in profile.stats()["grid"]}
    used = candidates.texts[0, np.union1d(selected.chosen, selected.rejected)]
    return {
        PAIRS: selected.row.size,
        **{above(pairs.tau, eta): points[pairs.tau, eta] for eta in neighbours(pairs)},
        WITH_PAIR: min(1, selected.row.size),
        DIFFERENT: profile.distinct,
        TOKENS: int(candidates.lengths.sum()),
        IN_PAIRS: np.unique(used).size,
    }


def _most(name: str, config: Config) -> float:
    """Return what a prompt can have at most of something."""
    k = config.sampling.k
    possible = k * (k - 1) // 2
    known = {
        PAIRS: min(possible, config.pairs.max_pairs_per_prompt or possible),
        WITH_PAIR: 1,
        DIFFERENT: k,
        TOKENS: k * config.sampling.max_new_tokens,
        IN_PAIRS: k,
    }
    return known.get(name, possible)
