"""What a training says while it trains: steps, loss, and how often chosen is above rejected."""

import re

import pytest
from trainings import STEPS, train

from tasks.pipeline import progress
from tasks.store.folders import Store

pytestmark = pytest.mark.usefixtures("one_thread")
FIGURE = r"-?[\d.]+(e-\d+)?"
MATTERS = {"sft": "", "reward_model": f", accuracy {FIGURE}", "dpo": f", rewards/accuracies {FIGURE}"}


@pytest.mark.parametrize("stage", MATTERS)
def test_a_training_says_what_matters(tmp_path, start, monkeypatch, capsys, stage):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    train(stage, Store(str(tmp_path)), start)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("training steps: ")]
    matters = rf"loss {FIGURE}{MATTERS[stage]}, [\d,]+ tokens/s"
    assert re.fullmatch(rf"training steps: {STEPS} / {STEPS} \(100%\) in \d+ s, [\d.]+/s, {matters}", lines[-1])
    under_way = [line for line in lines if line.startswith(f"training steps: 5 / {STEPS} (50%), ")]
    assert under_way
    assert any(re.search(rf", \d+ s left, {matters}$", line) for line in under_way)
