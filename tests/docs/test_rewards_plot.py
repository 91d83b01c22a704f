"""docs/rewards.py: the plot in the README, and the samples that are printed beside it."""

import runpy
import sys

import pyarrow as pa
from runs import ROOT

from tasks.store.artifacts import Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS


def commit(store, stage, kind, files, rows, **stats):
    draft = Draft(store, Provenance(stage=stage, version=1, key="0" * 64))
    draft.commit(kind, files, "d", rows=rows, stats=stats)


def test_the_plot(monkeypatch, tmp_path, capsys):
    """Of two prompts the one with the lower id is printed, with the first sample of each policy."""
    store = Store(str(tmp_path / "store"))
    samples = [
        {"policy": policy, "prompt_id": prompt, "completion_id": number, "completion": f"{policy} {number}"}
        | {"reward_name": "gold", "reward": reward + number}
        for policy, reward in (("sft", 0.0), ("aligned", 1.0))
        for prompt in "ba"
        for number in range(2)
    ]
    prompts = [
        {"prompt_id": each, "messages": [{"role": "user", "content": f"{each}?"}], "source": ""} for each in "ab"
    ]
    held_out = table_bytes(pa.Table.from_pylist(prompts, SCHEMAS["prompts"]), "prompts")
    evaluation = table_bytes(pa.Table.from_pylist(samples, SCHEMAS["evaluation"]), "evaluation")
    commit(store, "load_held_out", "prompts", {"rows-000000.parquet": held_out}, 2)
    policies = {"sft": {}, "aligned": {}}
    commit(
        store, "evaluate_policy", "evaluation", {"samples.parquet": evaluation}, 8, reference="sft", policies=policies
    )
    module = runpy.run_path(str(ROOT / "docs/rewards.py"))
    module["main"].__globals__["PLOT"] = tmp_path / "rewards.svg"
    monkeypatch.setattr(sys, "argv", ["rewards.py", store.uri, "--prompts", "1"])
    module["main"]()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows == ["| a? | sft | sft 0 | 0.00 |", "| a? | aligned | aligned 0 | 1.00 |"]
    assert (tmp_path / "rewards.svg").read_text().startswith("<?xml")
