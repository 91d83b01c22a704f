"""What a training goes through, by hand."""

import pytest

from tasks.config.training import DpoConfig
from tasks.planning.costs import trained_pairs


@pytest.mark.parametrize(
    ("pairs", "settings", "steps", "trained"),
    [
        (200, {}, 10, 500),  # steps of 64, 64, 64 and 8 pairs: two and a half passes
        (640, {}, 10, 640),
        (3200, {}, None, 3200),
        (3200, {"epochs": 2}, None, 6400),
        (200, {"evaluation_fraction": 0.5}, None, 100),
        (30, {}, 10, 300),  # a step takes all there are
        (0, {}, 10, 0),
    ],
)
def test_pairs_that_are_trained_on(pairs, settings, steps, trained):
    assert trained_pairs(pairs, DpoConfig(batch_size=64, **settings), steps) == pytest.approx(trained)
