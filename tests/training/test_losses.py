"""Our own losses against numbers worked out by hand, and laws."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.config.losses import OWN_LOSSES
from tasks.training import losses
from tasks.training.losses import (
    cdpo_loss,
    kto_loss,
    odpo_loss,
    orpo_loss,
    rebel_loss,
    rpo_loss,
    sft_sequence_loss,
    simpo_loss,
)

MARGIN = st.floats(-30, 30)
GAP = st.floats(0.01, 20)
DISTANCES = ("backward", "forward", "squared")


def tensor(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def dpo(margin: float) -> float:
    return -torch.nn.functional.logsigmoid(tensor(margin)).item()


def minimum(loss, start: float, rate: float = 0.5, steps: int = 2000) -> float:
    """Return where a loss of one number is least."""
    value = tensor(start).requires_grad_()
    for _ in range(steps):
        (slope,) = torch.autograd.grad(loss(value).sum(), value)
        value = (value - rate * slope).detach().requires_grad_()
    return value.item()


def test_cdpo_by_hand():
    # h = 1: -0.9 log sigma(1) - 0.1 log sigma(-1) = 0.9 x 0.313262 + 0.1 x 1.313262
    assert cdpo_loss(torch.tensor(1.0), 0.1).item() == pytest.approx(0.413262, abs=1e-6)
    assert cdpo_loss(torch.tensor([0.0]), 0.3).item() == pytest.approx(0.693147, abs=1e-6)


@given(MARGIN, st.floats(0, 0.49))
def test_without_smoothing_it_is_dpo_and_with_it_the_flipped_label_counts(margin, smoothing):
    assert cdpo_loss(tensor(margin), 0.0).item() == dpo(margin)
    mixed = (1 - smoothing) * dpo(margin) + smoothing * dpo(-margin)
    assert cdpo_loss(tensor(margin), smoothing).item() == pytest.approx(mixed)


def test_the_minimum_of_cdpo_is_where_the_model_believes_a_label_as_often_as_it_is_right():
    assert 1 / (1 + math.exp(-minimum(lambda h: cdpo_loss(h, 0.2), 0.0, rate=2))) == pytest.approx(0.8, abs=1e-6)


def test_simpo_by_hand():
    # -log sigma(2 (-1 + 2) - 1) = -log sigma(1) = 0.313262
    assert simpo_loss(tensor(-1.0), tensor(-2.0), 2.0, 1.0).item() == pytest.approx(0.313262, abs=1e-6)


def test_orpo_by_hand():
    # p_w = 1/2 has odds 1, p_l = 1/4 odds 1/3: log 2 - 0.1 log sigma(log 3) = 0.693147 + 0.1 x log(4/3)
    loss = orpo_loss(tensor(math.log(1 / 2)), tensor(math.log(1 / 4)), 0.1)
    assert loss.item() == pytest.approx(0.693147 + 0.1 * 0.287682, abs=1e-6)


def test_orpo_of_a_certain_completion_is_a_number():
    certain = torch.tensor([0.0, -1e-12, -60.0], requires_grad=True)
    loss = orpo_loss(certain, certain.detach().flip(0), 0.1)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(certain.grad).all()


def test_the_likelihood_term_by_hand():
    assert sft_sequence_loss(tensor(-0.7)).item() == 0.7


def test_odpo_by_hand():
    # a gap of e: -log sigma(2 - 1 x log e) = -log sigma(1); as it is: -log sigma(2 - 0.5 x 2) = -log sigma(1)
    assert odpo_loss(tensor(2.0), tensor(math.e), 1.0, "log").item() == pytest.approx(0.313262, abs=1e-6)
    assert odpo_loss(tensor(2.0), tensor(2.0), 0.5, "linear").item() == pytest.approx(0.313262, abs=1e-6)


@given(MARGIN, GAP)
def test_without_an_offset_it_is_dpo(margin, gap):
    assert odpo_loss(tensor(margin), tensor(gap), 0.0, "log").item() == dpo(margin)
    assert odpo_loss(tensor(margin), tensor(1.0), 3.0, "log").item() == dpo(margin)


@given(MARGIN, GAP, st.floats(0.1, 3))
def test_an_offset_moves_dpo(margin, gap, alpha):
    for scale, offset in (("linear", gap), ("log", math.log(gap))):
        assert odpo_loss(tensor(margin), tensor(gap), alpha, scale).item() == pytest.approx(
            dpo(margin - alpha * offset)
        )


def test_rpo_by_hand():
    # h = 0, g = log 3, so sigma(g) = 3/4: KL(3/4 | 1/2) = 3/4 log(3/2) + 1/4 log(1/2), and KL(1/2 | 3/4)
    h, gap = tensor(0.0), tensor(math.log(3) / 2)
    assert rpo_loss(h, gap, 2.0, "backward").item() == pytest.approx(0.130812, abs=1e-6)
    assert rpo_loss(h, gap, 2.0, "forward").item() == pytest.approx(0.143841, abs=1e-6)
    assert rpo_loss(h, gap, 2.0, "squared").item() == pytest.approx(0.603474, abs=1e-6)  # (log 3)^2 / 2


@given(MARGIN, GAP, st.floats(0.1, 3), st.sampled_from(DISTANCES))
def test_a_distance_is_zero_at_its_target_and_nowhere_below(margin, gap, eta, distance):
    assert rpo_loss(tensor(eta * gap), tensor(gap), eta, distance).item() == pytest.approx(0, abs=1e-12)
    assert rpo_loss(tensor(margin), tensor(gap), eta, distance).item() >= -1e-12


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_minimum_of_rpo_is_the_gap(distance):
    assert minimum(lambda h: rpo_loss(h, tensor(0.6), 2.0, distance), 0.0) == pytest.approx(1.2, abs=1e-6)


@given(st.floats(-20, 20))
def test_rpo_goes_to_dpo_as_the_reward_is_certain(margin):
    assert rpo_loss(tensor(margin), tensor(1.0), 1e3, "backward").item() == pytest.approx(dpo(margin), abs=1e-9)


def test_rebel_by_hand():
    assert rebel_loss(tensor(0.5), tensor(2.0)).item() == 2.25


@given(MARGIN, GAP)
def test_rebel_is_zero_at_its_target_and_twice_rpos_square(margin, gap):
    assert rebel_loss(tensor(gap), tensor(gap)).item() == 0
    square = 2 * rpo_loss(tensor(margin), tensor(gap), 1.0, "squared").item()
    assert rebel_loss(tensor(margin), tensor(gap)).item() == pytest.approx(square)


def test_kto_by_hand():
    # A chosen completion 1 above the reference point, 0.5, and a rejected one at it: 1 - sigma(1) and 1 - sigma(0)
    rewards, point, ones = torch.tensor([[1.5], [0.5]]), torch.tensor(0.5), torch.ones(2, 1)
    assert kto_loss(rewards, point, ones, 1.0, 1.0).item() == pytest.approx(0.268941 + 0.5, abs=1e-6)
    assert kto_loss(rewards, point, ones, 2.0, 0.5).item() == pytest.approx(2 * 0.268941 + 0.25, abs=1e-6)
    shares = torch.tensor([[0.5], [1.0]])
    assert kto_loss(rewards, point, shares, 1.0, 1.0).item() == pytest.approx(0.5 * 0.268941 + 0.5, abs=1e-6)


@given(MARGIN, st.floats(0, 5))
def test_kto_of_a_completion_that_is_as_often_above_as_below_is_a_constant(reward, point):
    both = torch.full((2, 1), reward, dtype=torch.float64)
    assert kto_loss(both, tensor(point), 0.5 * torch.ones(2, 1), 1.0, 1.0).item() == pytest.approx(0.5)


def test_every_name_has_a_function_that_takes_what_its_line_says():
    for name, own in OWN_LOSSES.items():
        code = getattr(losses, f"{name}_loss").__code__
        assert code.co_varnames[: code.co_argcount] == (*own.reads, *own.settings), name
