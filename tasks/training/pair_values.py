"""What losses read of the pairs of a pack, and what is logged of them.

Imports torch, so import it inside functions only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

PAIR_METRICS = (
    *("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"),
    *("logps/chosen", "logps/rejected"),
)


@dataclass(frozen=True)
class PairValues:
    """Values of pairs; of two rows, the first is of the chosen completions, the second of the rejected ones."""

    beta: float
    """Strength of the pull towards the reference."""
    logps: torch.Tensor
    """log pi(y|x), (2, pairs), in nats."""
    ref_logps: torch.Tensor
    """log pi_ref(y|x), (2, pairs); NaN where the losses have no reference."""
    lengths: torch.Tensor
    """Tokens, (2, pairs)."""
    reward_gaps: torch.Tensor
    """r(x, y_w) - r(x, y_l), (pairs,); NaN where no loss reads them."""
    shares: torch.Tensor
    """Part of its completion that each side of a pair is, (2, pairs); see `kto_loss`. NaN where no loss reads them."""
    reference_reward: torch.Tensor
    """Reward of a completion that is neither good nor bad, (); see `kto_loss`. NaN where no loss reads it."""
    weights: torch.Tensor
    """Weight of each pair, (pairs,), 1 on average over the pack."""

    @property
    def rewards(self) -> torch.Tensor:
        """Return beta log pi(y|x)/pi_ref(y|x), (2, pairs)."""
        return self.beta * (self.logps - self.ref_logps)

    @property
    def margins(self) -> torch.Tensor:
        """Return beta (log pi(y_w|x)/pi_ref(y_w|x) - log pi(y_l|x)/pi_ref(y_l|x)), (pairs,)."""
        chosen, rejected = self.logps - self.ref_logps
        return self.beta * (chosen - rejected)

    @property
    def mean_logps(self) -> torch.Tensor:
        """Return log pi(y|x) / |y|, (2, pairs), in nats a token."""
        return self.logps / self.lengths

    @property
    def chosen_mean_logps(self) -> torch.Tensor:
        """Return `mean_logps` of the chosen completions, (pairs,)."""
        return self.mean_logps[0]

    @property
    def rejected_mean_logps(self) -> torch.Tensor:
        """Return `mean_logps` of the rejected completions, (pairs,)."""
        return self.mean_logps[1]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean over the pairs, which are the last dimension."""
        return (values * self.weights.to(values)).mean(-1)


OwnLoss = Callable[[PairValues], torch.Tensor]
"""From the values of some pairs to each pair's loss, (pairs,)."""


def added_losses(losses: Sequence[tuple[OwnLoss, float]], values: PairValues) -> torch.Tensor:
    """Return the sum of some losses' means over the pairs, each times its weight."""
    return sum((own * values.mean(loss(values)) for loss, own in losses), torch.zeros(()))


def pair_metrics(values: PairValues, rewards: torch.Tensor) -> torch.Tensor:
    """Return the means of `PAIR_METRICS` over the pairs.

    Args:
        values: Of the pairs.
        rewards: What a policy's own reward of each completion is, (2, pairs).
    """
    chosen, rejected = rewards
    found = torch.stack([chosen, rejected, (chosen > rejected).to(chosen), chosen - rejected, *values.logps])
    return values.mean(found.detach())
