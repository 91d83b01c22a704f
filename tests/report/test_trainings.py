"""How training went: the curves of what a training has logged."""

import math

import pyarrow as pa
import pytest

from tasks.pipeline.configuration import Config
from tasks.report.facts import Facts
from tasks.report.trainings import training_section
from tasks.store.artifacts import Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS


@pytest.mark.parametrize(
    ("losses", "caption"),
    [
        ([0.7, 0.6, 0.5], "Loss of DPO"),
        ([0.7, math.nan, math.inf], "Loss of DPO; 2 of 3 points are no numbers"),
        ([math.nan] * 3, "Loss of DPO; 3 of 3 points are no numbers"),
    ],
)
def test_a_curve_says_what_it_cannot_show(tmp_path, losses, caption):
    rows = [{"step": step, "metric": "loss", "value": loss} for step, loss in enumerate(losses, 1)]
    _, curve = training_section(logged(tmp_path, "train_dpo", rows)).blocks
    assert curve.caption == caption


def logged(folder, stage, rows):
    """Return the facts of a run whose training has logged some rows."""
    files = {"training_log.parquet": table_bytes(pa.Table.from_pylist(rows, SCHEMAS["training_log"]), "training_log")}
    store = Store(str(folder))
    out = Draft(store, Provenance(stage=stage, version=1, key="0" * 64))
    config = Config.model_validate({"data": {"prompts": "x"}, "sft": {"ready_model": "y"}})
    return Facts(store, config, artifacts={stage: out.commit("model", files, "1" * 64)})


def test_rloo_shows_what_it_draws(tmp_path):
    rows = [{"step": step, "metric": "reward", "value": step / 10} for step in range(1, 4)]
    rows += [{"step": step, "metric": "kl", "value": step / 100} for step in range(1, 4)]
    reward, kl = training_section(logged(tmp_path, "train_rloo", rows)).blocks
    assert (reward.caption, kl.caption) == ("Reward of what RLOO draws", "KL of what RLOO draws")
