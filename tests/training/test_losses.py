"""Our own losses against numbers worked out by hand, and against TRL's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.training.losses import cdpo_loss


def test_by_hand():
    # h = 1: -0.9 log sigma(1) - 0.1 log sigma(-1) = 0.9 x 0.313262 + 0.1 x 1.313262
    assert cdpo_loss(torch.tensor(1.0), 0.1).item() == pytest.approx(0.413262, abs=1e-6)
    assert cdpo_loss(torch.tensor([0.0]), 0.3).item() == pytest.approx(0.693147, abs=1e-6)


@given(st.floats(-30, 30), st.floats(0, 0.49))
def test_without_smoothing_it_is_dpo_and_with_it_the_flipped_label_counts(margin, smoothing):
    h = torch.tensor(margin, dtype=torch.float64)
    dpo, flipped = (-torch.nn.functional.logsigmoid(sign * h) for sign in (1, -1))
    assert cdpo_loss(h, 0.0) == dpo
    assert cdpo_loss(h, smoothing).item() == pytest.approx(((1 - smoothing) * dpo + smoothing * flipped).item())


def test_the_minimum_is_where_the_model_believes_a_label_as_often_as_it_is_right():
    h = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    for _ in range(400):
        (slope,) = torch.autograd.grad(cdpo_loss(h, 0.2).sum(), h)
        h = (h - 2 * slope).detach().requires_grad_()
    assert torch.sigmoid(h).item() == pytest.approx(0.8, abs=1e-6)
