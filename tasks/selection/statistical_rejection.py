"""RSO (arXiv:2309.06657): some of a prompt's completions, by statistical rejection sampling, and games between them.

Algorithm 1 of the paper turns k samples of the policy into m samples of the policy that beta_rso and the reward define,
pi(y | x) exp(r(x, y) / beta_rso): round after round, each completion that is not accepted yet is accepted with
probability exp((r - r_max) / beta_rso), r_max being the highest reward of those that are not, until m are.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from tasks.selection.draws import completion_draws, prompt_seeds
from tasks.selection.pairs import Candidates, PairIndices, SeededSettings, no_pairs, once_each_text


class StatisticalRejectionSettings(SeededSettings):
    """RSO: completions accepted by statistical rejection sampling, in games of two (arXiv:2309.06657)."""

    beta_rso: float = Field(0.5, gt=0)
    """RSO's temperature of the reward, in units of reward (paper: 0.5). Lower accepts higher rewards alone."""
    accepted_rso: int = Field(8, ge=2)
    """RSO's accepted completions a prompt (paper: 8 of k = 64). All are accepted where there are no more."""
    ranking_rso: Literal["first_round", "tournament"] = "first_round"
    """RSO's games. first_round: the first accepted completion against the second, the third against the fourth.
    tournament: the winners play on, until one is left."""


def statistical_rejection_pairs(candidates: Candidates, settings: StatisticalRejectionSettings) -> PairIndices:
    """Return the games between accepted completions, the higher reward chosen; a tie is no pair.

    Completions of one text are one candidate. The accepted ones play in the order in which they were accepted; of an
    odd number, the last one has no game in that round.
    """
    rewards = once_each_text(candidates)
    seeds = prompt_seeds(settings.seed, candidates.prompt_ids.to_pylist(), "statistical_rejection")
    players = accepted(rewards, seeds, settings.beta_rso, settings.accepted_rso)
    found = [no_pairs()]
    while players.shape[1] > 1:
        players, games = _play(players, rewards)
        found.append(games)
        if settings.ranking_rso == "first_round":
            break
    return PairIndices(*(np.concatenate(parts) for parts in zip(*found, strict=True))).ordered()


def accepted(rewards: np.ndarray, row_seeds: np.ndarray, beta: float, count: int) -> np.ndarray:
    """Return which completions Algorithm 1 accepts, (n, count) int in the order in which it does; -1: no more.

    Args:
        rewards: (n, k) rewards; NaN marks what is no candidate.
        row_seeds: (n,) uint64, see `prompt_seeds`.
        beta: Temperature of the reward, > 0.
        count: Completions to accept of each row.
    """
    order, taken = np.full((len(rewards), count), -1), np.zeros(len(rewards), int)
    left, rows = rewards.copy(), np.arange(len(rewards))
    for turn in range(count):  # a turn accepts the best one at least
        rows = rows[(taken[rows] < count) & ~np.isnan(left[rows]).all(axis=1)]
        own = left[rows]
        best = np.fmax.reduce(own, axis=1, keepdims=True, initial=-np.inf)
        uniform = (completion_draws(row_seeds[rows], rewards.shape[1], turn) >> np.uint64(11)) * 2.0**-53
        with np.errstate(invalid="ignore", under="ignore"):  # inf - inf
            hit = (own == best) | (uniform < np.exp((own - best) / beta))
        place = taken[rows, None] + hit.cumsum(axis=1) - 1
        row, completion = np.nonzero(hit & (place < count))
        order[rows[row], place[row, completion]] = completion
        left[rows[row], completion] = np.nan
        taken[rows] += np.bincount(row, minlength=len(rows))
    return order


def _play(players: np.ndarray, rewards: np.ndarray) -> tuple[np.ndarray, PairIndices]:
    """Return each game's winner, the first of equals, and the games as pairs.

    Args:
        players: (n, m) completions, neighbours 0-1, 2-3, ... playing; -1 where there is none, after all others.
        rewards: (n, k) rewards.
    """
    padded = np.pad(players, ((0, 0), (0, players.shape[1] % 2)), constant_values=-1)
    one, other = padded[:, 0::2], padded[:, 1::2]
    rows = np.arange(len(players))[:, None]
    wins = (other < 0) | (rewards[rows, one] >= rewards[rows, other])
    winner, loser = np.where(wins, one, other), np.where(wins, other, one)
    row, game = np.nonzero((other >= 0) & (rewards[rows, one] != rewards[rows, other]))
    return winner, PairIndices(row, winner[row, game], loser[row, game])
