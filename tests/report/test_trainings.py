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
    files = {"training_log.parquet": table_bytes(pa.Table.from_pylist(rows, SCHEMAS["training_log"]), "training_log")}
    store = Store(str(tmp_path))
    out = Draft(store, Provenance(stage="train_dpo", version=1, key="0" * 64))
    config = Config.model_validate({"data": {"prompts": "x"}, "sft": {"ready_model": "y"}})
    facts = Facts(store, config, artifacts={"train_dpo": out.commit("model", files, "1" * 64)})
    _, curve = training_section(facts).blocks
    assert curve.caption == caption
