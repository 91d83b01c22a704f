"""Stores that releases have left: every artifact is found again, and none is computed."""

import re
import shutil
from pathlib import Path

import pytest
from runs import ROOT, written

from flows.command_line import foresee
from flows.config_files import load_config
from flows.rs_dpo import rs_dpo
from tasks.inspection.catalog import read_catalog
from tasks.store.compaction import compact_store
from tasks.store.folders import Store
from tasks.store.growing import replaced_by
from tasks.store.parquet import read_table
from tasks.store.slices import read_slices

STORES = sorted((ROOT / "tests/stores").iterdir())


@pytest.fixture(params=STORES, ids=lambda folder: folder.name)
def as_it_was(request, tmp_path, monkeypatch) -> Path:
    """Return a copy of a store with its world, and go there."""
    folder = tmp_path / "copy"
    shutil.copytree(request.param, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(params=["as it was", "compacted"])
def stored(request, as_it_was) -> Path:
    """Return the copy, its small parts merged or not."""
    if request.param == "compacted":
        merged = {
            table.kind: [len(replaced_by(part)) for part in parts] for table, parts in compact_store(Store("store"))
        }
        assert min(merged["completions"]) > 1
    return as_it_was


def test_every_artifact_of_a_store_is_found_again(stored, prefect_harness):
    before, given = written(stored / "store"), load_config("config.yaml", []).sections()
    plan = foresee(rs_dpo, given)
    new = ["build_pairs", "train_dpo", "evaluate_policy"]  # a dry run does not know that the pairs are the same
    assert [step["stage"] for step in plan.steps if step["action"] != "reuse"] == new
    found = rs_dpo(**given)
    new = [path for path in written(stored / "store") if path not in before]
    assert new
    again = {path.split("/")[0] for path in new}
    assert again == {"build_pairs", "evaluate_policy"}, "nothing is drawn, scored or trained again"
    assert len(plan.steps) == 13
    store = Store("store")
    assert {entry.damage for entry in read_catalog(store).entries.values()} == {""}
    assert read_table(found["pairs"]).num_rows == found["pairs"].rows > 0
    assert (
        sum(own.read().num_rows for own in read_slices(store, found["completions"])) == found["completions"].rows == 64
    )


def test_less_is_asked_of_a_store_and_nothing_is_drawn_or_scored(stored, prefect_harness):
    before = written(stored / "store")
    changes = ["sampling.k=3", "data.max_prompts=10", "sampling.part_size=3"]
    found = rs_dpo(**load_config("config.yaml", changes).sections())
    assert (found["completions"].rows, found["completions"].stats["sampled_prompts"]) == (30, 0)
    assert (found["rewards"].rows, found["rewards"].stats["scored"]) == (30, 0)
    new = {path.split("/")[0] for path in written(stored / "store").keys() - before.keys()}
    assert not {"train_sft", "train_reward_model", "load_demonstrations", "load_held_out"} & new


def test_a_store_tells_nothing_of_the_machine_that_wrote_it():
    for folder in STORES:
        assert not (folder / "store" / "runs").exists()
        for path in (*folder.rglob("manifest.json"), *folder.rglob("slices.json"), *folder.rglob("*config.json")):
            assert not re.search(r'"/|"~|://', path.read_text()), path
