"""Pairs that DPO is measured on and does not train on."""

import numpy as np
import pytest
import trainings
from trainings import STEPS, examples, train

from tasks.config.errors import ConfigurationError
from tasks.data.prompt_table import hash_fraction
from tasks.lm.logps import CompletionLogps
from tasks.models.loading import load_policy, model_folder
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.parquet import read_table

FRACTION = 0.3
ROWS = examples("dpo").to_pylist()
HELD_OUT = [row for row in ROWS if hash_fraction(f"dpo:0:{row['prompt_id']}") < FRACTION]


@pytest.fixture(scope="module")
def trained(start, tmp_path_factory) -> Artifact:
    return train("dpo", Store(str(tmp_path_factory.mktemp("held_out"))), start, evaluation_fraction=FRACTION)


def metric(model: Artifact, name: str) -> list[tuple[int, float]]:
    log = read_table(Artifact(kind="training_log", uri=model.uri, digest=model.digest)).to_pylist()
    return [(row["step"], row["value"]) for row in log if row["metric"] == name]


def test_the_last_figures_are_those_of_the_trained_model(trained):
    assert 0 < len(HELD_OUT) < len(ROWS)
    model, margins = CompletionLogps(load_policy(model_folder(trained), "float32", False)), []
    for row in HELD_OUT:
        ratios = model([row["prompt"]], row["completions"], [0] * 3) - row["ref_logps"]
        margins += [0.1 * (ratios[j] - ratios[i]) for j, i in zip(row["chosen"], row["rejected"], strict=True)]
    (step, margin), (_, accuracy) = metric(trained, "held_out/margin")[-1], metric(trained, "held_out/accuracy")[-1]
    assert step == STEPS
    assert margin == pytest.approx(np.mean(margins), abs=1e-4)
    assert accuracy == pytest.approx(np.mean(np.array(margins) > 0))
    assert [step for step, _ in metric(trained, "held_out/margin")] == list(range(1, STEPS + 1))


def test_what_is_held_out_does_not_change_the_model(trained, start, tmp_path, monkeypatch):
    own = examples("dpo")
    kept = own.filter([row not in HELD_OUT for row in ROWS])
    monkeypatch.setattr(trainings, "examples", lambda stage: kept)
    assert train("dpo", Store(str(tmp_path)), start).digest == trained.digest


def test_all_held_out_is_refused(start, tmp_path):
    with pytest.raises(ConfigurationError, match=r"pairs of all 16 prompts .*evaluation_fraction = 0\.99999"):
        train("dpo", Store(str(tmp_path)), start, evaluation_fraction=0.99999)
