"""Losses of pairs that TRL does not have: pure functions, each with its equation and source.

Imports torch, so import it inside functions only.
"""

import torch
from torch.nn.functional import logsigmoid


def cdpo_loss(margins: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Return the loss of pairs whose labels are wrong with a known probability (conservative DPO, cDPO).

    -(1 - e) log sigma(h) - e log sigma(-h), with h = beta (log pi(y_w|x)/pi_ref(y_w|x) - log pi(y_l|x)/pi_ref(y_l|x)).
    Its minimum is at sigma(h) = 1 - e, so that a pair is not pulled apart without end. Source: E. Mitchell, "A note on
    DPO with noisy preferences and relationship to IPO" (2023), equation 2. At e = 0 it is DPO's (arXiv:2305.18290).

    Args:
        margins: h of each pair, any shape.
        label_smoothing: e, 0 <= e < 0.5.
    """
    return -(1 - label_smoothing) * logsigmoid(margins) - label_smoothing * logsigmoid(-margins)
