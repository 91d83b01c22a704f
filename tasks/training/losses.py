"""Losses of pairs that TRL's trainer of pairs does not have: pure functions, each with its equation and source.

`OWN_LOSSES` in tasks/config/losses.py says what each is called with. h is the margin of a pair, as in DPO
(arXiv:2305.18290): h = beta (log pi(y_w|x)/pi_ref(y_w|x) - log pi(y_l|x)/pi_ref(y_l|x)), in nats. A mean
log-probability is log pi(y|x) / |y|, over the tokens of y, its end included. Imports torch, so import it inside
functions only.
"""

import torch
from torch.nn.functional import logsigmoid

from tasks.config.losses import Distance, Scale


def cdpo_loss(margins: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Return the loss of pairs whose labels are wrong with a known probability (conservative DPO, cDPO).

    -(1 - e) log sigma(h) - e log sigma(-h).
    Its minimum is at sigma(h) = 1 - e, so that a pair is not pulled apart without end. Source: E. Mitchell, "A note on
    DPO with noisy preferences and relationship to IPO" (2023), equation 2. At e = 0 it is DPO's (arXiv:2305.18290).

    Args:
        margins: h of each pair, any shape.
        label_smoothing: e, 0 <= e < 0.5.
    """
    return -(1 - label_smoothing) * logsigmoid(margins) - label_smoothing * logsigmoid(-margins)


def simpo_loss(
    chosen_mean_logps: torch.Tensor, rejected_mean_logps: torch.Tensor, beta: float, gamma: float
) -> torch.Tensor:
    """Return the loss of pairs by mean log-probabilities, without a reference (SimPO, arXiv:2405.14734, equation 6).

    -log sigma(beta log pi(y_w|x) / |y_w| - beta log pi(y_l|x) / |y_l| - gamma). TRL's `CPOTrainer` with `simpo` has the
    same, beside a term of likelihood that is 0 with its `cpo_alpha` 0.

    Args:
        chosen_mean_logps: Nats a token, any shape.
        rejected_mean_logps: The same shape.
        beta: Factor, > 0. It is no pull towards anything; the paper takes 2 to 10.
        gamma: Least difference to reach, in units of beta times nats a token, >= 0; the paper takes about beta / 2.
    """
    return -logsigmoid(beta * (chosen_mean_logps - rejected_mean_logps) - gamma)


def orpo_loss(chosen_mean_logps: torch.Tensor, rejected_mean_logps: torch.Tensor, weight: float) -> torch.Tensor:
    """Return the likelihood of chosen and its odds against rejected (ORPO, arXiv:2403.07691, equations 6 and 7).

    -log p_w - weight log sigma(log(p_w / (1 - p_w)) - log(p_l / (1 - p_l))), with p = exp(log pi(y|x) / |y|). There is
    no reference. TRL's `ORPOTrainer` has the same odds; its likelihood is a mean over all tokens of a batch, those of
    the prompts too, where the paper's, and this, is each chosen completion's own.

    Args:
        chosen_mean_logps: Nats a token, below 0, any shape.
        rejected_mean_logps: The same shape.
        weight: The paper's lambda, >= 0; it takes 0.1 to 1.
    """
    log_odds = _log_odds(chosen_mean_logps) - _log_odds(rejected_mean_logps)
    return -chosen_mean_logps - weight * logsigmoid(log_odds)


def _log_odds(logps: torch.Tensor) -> torch.Tensor:
    """Return log(p / (1 - p)) of p = exp(logps), finite also where p rounds to 1."""
    below = logps.clamp(max=-torch.finfo(logps.dtype).eps)
    return below - torch.log(-torch.expm1(below))


def sft_sequence_loss(chosen_mean_logps: torch.Tensor) -> torch.Tensor:
    """Return the likelihood term of each pair's chosen completion, to be added to another loss (arXiv:2404.19733).

    -log pi(y_w|x) / |y_w|: every completion counts the same, however long. TRL's `sft` is a mean over all chosen tokens
    of the step instead, so that long completions count more.

    Args:
        chosen_mean_logps: Nats a token, any shape.
    """
    return -chosen_mean_logps


def odpo_loss(margins: torch.Tensor, reward_gaps: torch.Tensor, alpha: float, scale: Scale) -> torch.Tensor:
    """Return DPO's loss with an offset: pairs far apart in reward must be so in margin (ODPO, arXiv:2402.10571).

    -log sigma(h - alpha f(r_w - r_l)), f the logarithm, as in the paper, or the identity (`linear`). At alpha = 0 it is
    DPO's.

    Args:
        margins: h of each pair, any shape.
        reward_gaps: r_w - r_l in units of reward, the same shape; > 0 where `scale` is `log`.
        alpha: >= 0; the paper takes 1 where it says nothing else.
        scale: f.
    """
    offsets = reward_gaps.log() if scale == "log" else reward_gaps
    return -logsigmoid(margins - alpha * offsets)


def rpo_loss(margins: torch.Tensor, reward_gaps: torch.Tensor, eta: float, distance: Distance) -> torch.Tensor:
    """Return the distance of each pair's margin h from its reward gap g = eta (r_w - r_l) (RPO, arXiv:2502.00203).

    `squared`: (h - g)^2 / 2. `backward`: KL(sigma(g) | sigma(h)), that is, the cross-entropy of the reward's own
    preference less its entropy. `forward`: KL(sigma(h) | sigma(g)). All are 0 where h = g, and only there.

    Args:
        margins: h of each pair, any shape.
        reward_gaps: r_w - r_l in units of reward, the same shape.
        eta: > 0. As it grows, `backward` goes to DPO's.
        distance: Which of the three.
    """
    targets = eta * reward_gaps
    if distance == "squared":
        return 0.5 * (margins - targets) ** 2
    return _bernoulli_kl(targets, margins) if distance == "backward" else _bernoulli_kl(margins, targets)


def _bernoulli_kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return KL(sigma(one) | sigma(other)) in nats."""
    up = torch.sigmoid(one) * (logsigmoid(one) - logsigmoid(other))
    return up + torch.sigmoid(-one) * (logsigmoid(-one) - logsigmoid(-other))


def rebel_loss(margins: torch.Tensor, reward_gaps: torch.Tensor) -> torch.Tensor:
    """Return the squared error of the margin as a prediction of the reward gap (REBEL, arXiv:2404.16767, algorithm 1).

    (h - (r_w - r_l))^2: beta is 1 / eta of the paper, and the reference the policy that drew the completions.

    Args:
        margins: h of each pair, any shape.
        reward_gaps: r_w - r_l in units of reward, the same shape.
    """
    return (margins - reward_gaps) ** 2


def kto_loss(
    rewards: torch.Tensor,
    reference_reward: torch.Tensor,
    shares: torch.Tensor,
    desirable_weight: float,
    undesirable_weight: float,
) -> torch.Tensor:
    """Return the loss of single completions, desirable or not (KTO, arXiv:2402.01306, equation 8).

    With v = beta log pi(y|x)/pi_ref(y|x): lambda_D (1 - sigma(v - beta z0)) of a chosen and lambda_U (1 - sigma(beta z0
    - v)) of a rejected completion, as TRL's `KTOTrainer` has it. Its mean over completions, each counted once, is
    written as a mean over pairs: a completion in m pairs has the m-th part of its loss in each. One that is chosen in
    some of its pairs and rejected in others is desirable for that part of it, and undesirable for the rest. So one that
    is as often above as below teaches nothing where the weights are equal, since its two terms add up to a constant.

    Args:
        rewards: v of chosen and rejected, (2, pairs), in nats.
        reference_reward: beta z0, (), >= 0, without gradient; see `unrelated.py`.
        shares: Part of its completion that each side of a pair is, times the step's pairs by its completions, (2,
            pairs): chosen and rejected together are 1 on average over the step.
        desirable_weight: lambda_D, > 0.
        undesirable_weight: lambda_U, > 0.
    """
    chosen, rejected = rewards
    desirable = desirable_weight * torch.sigmoid(reference_reward - chosen)
    undesirable = undesirable_weight * torch.sigmoid(rejected - reference_reward)
    return shares[0] * desirable + shares[1] * undesirable
