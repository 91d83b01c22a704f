"""Runs that keep the best model along the training, on the quickstart's world at a reduced size."""

from pathlib import Path

import pytest
import runs
from runs import ROOT, on_small_world

from tasks.examples.world import write_world
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.manifests import read_manifest
from tasks.store.parquet import read_file
from tasks.store.runs import list_runs

pytestmark = pytest.mark.slow

SOURCE = "def brief(messages, completion):\n    return -float(len(completion.split()))\n"
HELD_OUT = {
    "rewards.brief.function": "own_rewards:brief",
    "pairs.rewards.reward_model": "{}",
    "dpo.snapshots": "2",
    "sampling.engine": "transformers",  # starts at once
    "dpo.learning_rate": "3.0e-3",
}


def test_the_best_model_is_the_aligned_one_and_the_training_is_found_again(tmp_path, monkeypatch):
    write_world(tmp_path / "world", seed=0, scale=0.1)
    (tmp_path / "own_rewards.py").write_text(SOURCE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    store = tmp_path / "store"
    last = runs.run("quickstart.yaml", **on_small_world(tmp_path / "world", store, **HELD_OUT))
    best = runs.run("quickstart.yaml", **on_small_world(tmp_path / "world", store, **HELD_OUT, dpo__keep="best"))
    assert best["artifacts"]["trained"] == last["artifacts"]["aligned"]
    assert "trained" not in last["artifacts"]
    assert len(list((store / "train_dpo").iterdir())) == 1
    curve, kept = best["metrics"]["curve"]["policies"], best["metrics"]["aligned"]["kept"]
    assert curve.keys() == {"sft", "step-4", "step-8", "last"}
    means = {name: own["rewards"]["brief"]["mean"] for name, own in curve.items()}
    gained = best["metrics"]["aligned"]["held_out_gain"]
    assert gained == pytest.approx({name: mean - means["sft"] for name, mean in means.items() if name != "sft"})
    aligned = best["metrics"]["evaluation"]["policies"]["aligned"]
    assert aligned["rewards"] == curve[kept]["rewards"], "the kept model is what is compared"
    assert aligned["divergence"] == curve[kept]["divergence"]
    check_report_and_card(store, best)


def check_report_and_card(store: Path, result: dict) -> None:
    *_, run = list_runs(Store(str(store)))[0]
    report = (store / "runs" / run.id / "report.html").read_text()
    assert "by KL from the reference" in report
    assert "brief" in report
    assert [each["level"] for each in run.verdicts if each["name"] == "held_out_fall"] != ["not measured"]
    uri = result["artifacts"]["aligned"]["uri"]
    folder = Path(uri.removeprefix("file://"))
    assert folder.parent.name == "choose_snapshot"
    (card,) = folder.glob("*/README.md")
    assert "learning rate 0.003" in card.read_text()
    model = Artifact(kind="model", uri=uri, digest=read_manifest(uri).digest)
    assert read_file(model, "training_log.parquet", "training_log").num_rows
