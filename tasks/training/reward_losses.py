"""Losses of a reward model: pure functions of the rewards of what is compared. `REWARD_LOSSES` lists them.

Each gives the losses of some pairs, or of one ranking. A training adds them up over an optimizer step, and divides by
the pairs, or the prompts, that the step takes. Imports torch, so import it inside functions only.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import logsigmoid


class PairRewards(NamedTuple):
    """What losses read of the preferences of a pass."""

    chosen: torch.Tensor
    """(pairs,) rewards of the chosen completions."""
    rejected: torch.Tensor
    """(pairs,) rewards of the rejected completions."""
    margins: torch.Tensor
    """(pairs,) the data's margins, in units of reward."""
    comparisons: torch.Tensor
    """(pairs,) how many different pairs the prompt of each pair has."""
    rankings: Sequence[torch.Tensor]
    """(completions,) rewards of each ranking, the best completion's first."""


def bradley_terry_loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Return -log sigma(r_w - r_l) of each pair (Bradley and Terry 1952; arXiv:1706.03741)."""
    return -logsigmoid(chosen - rejected)


def margin_loss(chosen: torch.Tensor, rejected: torch.Tensor, margins: torch.Tensor) -> torch.Tensor:
    """Return -log sigma(r_w - r_l - m) of each pair (arXiv:2307.09288 eq. 2)."""
    return -logsigmoid(chosen - rejected - margins)


def centred_loss(chosen: torch.Tensor, rejected: torch.Tensor, coefficient: float) -> torch.Tensor:
    """Return -log sigma(r_w - r_l) + c (r_w + r_l)^2 of each pair, which leaves rewards around 0 (arXiv:2312.09244).

    Args:
        chosen: (pairs,) rewards r_w.
        rejected: (pairs,) rewards r_l.
        coefficient: Weight c of the square (TRL's `center_rewards_coefficient`).
    """
    return bradley_terry_loss(chosen, rejected) + coefficient * (chosen + rejected) ** 2


def k_comparisons_loss(chosen: torch.Tensor, rejected: torch.Tensor, comparisons: torch.Tensor) -> torch.Tensor:
    """Return -log sigma(r_w - r_l) / C(K, 2) of each pair (arXiv:2203.02155, eq. 1).

    The pairs of a prompt add up to their mean, over those that are there where annotators left some of its C(K, 2) out.
    Of a pair that stands twice both are added: it weighs twice.

    Args:
        chosen: (pairs,) rewards r_w.
        rejected: (pairs,) rewards r_l.
        comparisons: (pairs,) different pairs of each pair's prompt: C(K, 2) of K completions.
    """
    return bradley_terry_loss(chosen, rejected) / comparisons


def plackett_luce_loss(rankings: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return -sum_i log(exp(r_i) / sum_{j >= i} exp(r_j)) of each ranking (Plackett 1975; arXiv:2305.18290, A.3).

    The probability that the best completion is drawn first, then the best of the others, and so on. Of two completions
    it is Bradley-Terry's.

    Args:
        rankings: (completions,) rewards of each ranking, the best completion's first.
    """
    rests = [rewards.flip(0).logcumsumexp(0).flip(0) for rewards in rankings]
    return torch.stack([(rest - rewards).sum() for rest, rewards in zip(rests, rankings, strict=True)])
