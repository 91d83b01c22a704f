"""How far a reward model is right on held-out pairs: by hand, then against a search."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.rewards.calibration import (
    BINS,
    calibrating_tau,
    calibration_error,
    preference_stats,
    reliability,
    wilson_interval,
)
from tasks.store.schemas import SCHEMAS


def rewards(chosen, rejected):
    columns = {"prompt_id": ["p"] * len(chosen), "chosen_reward": chosen, "rejected_reward": rejected}
    return pa.table(columns).cast(SCHEMAS["held_out_rewards"])


def test_a_few_pairs_by_hand():
    # Gaps log 3 (twice), -log 3 and 0: said 3/4 three times, 1/2 once; right 2 of 3, and half.
    log3 = math.log(3)
    found = reliability(np.array([log3, log3, -log3, 0.0]), 1.0)
    assert found.pairs.tolist() == [1, 0, 0, 0, 0, 3, 0, 0, 0, 0]
    assert (found.said[5], found.right[5]) == (pytest.approx(3 / 4), pytest.approx(2 / 3))
    assert calibration_error(found) == pytest.approx((3 * (3 / 4 - 2 / 3) + 1 * 0) / 4)
    stats = preference_stats(rewards([log3, log3, 0.0, 1.0], [0.0, 0.0, log3, 1.0]))
    assert stats["accuracy"] == 2.5 / 4
    # sigma(log 3 / tau) = 2/3 where tau = log 3 / log 2: the tie has the same likelihood under any tau.
    assert stats["calibrating_tau"] == pytest.approx(log3 / math.log(2))


def test_no_pair_has_no_accuracy():
    assert preference_stats(rewards([], [])) == {"accuracy": None}


@pytest.mark.parametrize("gaps", [[1.0, 2.0], [-1.0, 0.5], [0.0, 0.0], [-1.0, 1.0]])
def test_no_tau_calibrates_a_model_that_is_always_right_or_at_chance(gaps):
    assert calibrating_tau(np.array(gaps)) is None


@given(st.lists(st.floats(-50, 50).map(lambda gap: round(gap, 3)), min_size=2, max_size=30))
def test_no_other_tau_is_likelier(gaps):
    gaps = np.array(gaps)
    found = calibrating_tau(gaps)
    if found is not None:

        def loss(tau):
            return np.logaddexp(0, -gaps / tau).mean()

        assert loss(found) <= min(loss(found * 1.01), loss(found / 1.01))


@given(seed=st.integers(0, 20))
def test_a_model_that_is_what_it_says_is_calibrated(seed):
    rng = np.random.default_rng(seed)
    gaps = np.abs(rng.normal(size=20_000)) * 2
    gaps = np.where(rng.random(gaps.size) < 1 / (1 + np.exp(-gaps)), gaps, -gaps)
    assert calibration_error(reliability(gaps, 1.0)) < 0.02
    assert calibrating_tau(gaps) == pytest.approx(1.0, rel=0.1)
    assert reliability(gaps, 1.0).pairs.sum() == gaps.size
    assert reliability(gaps, 1.0).pairs.size == BINS


def test_wilson_by_hand():
    # 8 of 10: centre (.8 + .19207) / 1.38415, half 1.96 sqrt(.016 + .0096) / 1.38415 (as statsmodels has it).
    low, high = wilson_interval(0.8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
