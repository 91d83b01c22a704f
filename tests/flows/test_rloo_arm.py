"""RLOO as an arm beside RS-DPO, in the quickstart's world at its full size: what it learns, and what is told of it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import runs
import yaml
from runs import written

from tasks.examples.world import write_world

ONLINE = {
    "algorithm": "rloo",
    "rloo.max_steps": 30,
    "rloo.micro_batch_size": 64,
    "rloo.learning_rate": 3e-4,
    "rloo.lora": None,
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> tuple[dict, Path]:
    """What a comparison of RLOO with a short RS-DPO has printed last, and its store."""
    folder = tmp_path_factory.mktemp("rloo")
    write_world(folder / "world", seed=0)
    files = ("prompts", "demonstrations", "preferences", "evaluation_prompts")
    shared = {f"data.{name}": str(folder / "world" / f"{name}.jsonl") for name in files}
    shared |= {"sft.base_model": str(folder / "world" / "base_model"), "store": str(folder / "store")}
    shared |= {"data.max_evaluation_prompts": 80, "evaluation.k": 2, "sampling.k": 4, "rloo.snapshots": 1}
    arms = {"rloo": ONLINE, "threshold": {"dpo.max_steps": 4}}
    config = {"base": str(runs.ROOT / "configs" / "quickstart.yaml"), "set": shared, "arms": arms, "seeds": [0]}
    config |= {"size_matched": True, "reward": "reward_model"}
    (folder / "compare.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    command = [sys.executable, "-m", "flows.compare", str(folder / "compare.yaml"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=runs.ROOT, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1]), folder / "store"


def figures(part: dict, arm: str) -> dict[str, str]:
    (row,) = (row for row in part["rows"] if row[0] == arm)
    return dict(zip(part["head"], row, strict=True))


@pytest.mark.slow
def test_it_raises_the_reward_of_prompts_that_it_has_not_seen(compared):
    found, store = compared
    (file,) = store.glob("compare/*/*/comparison.parquet")
    models = {row["model"]: row for row in pq.read_table(file).to_pylist() if row["arm"] == "rloo"}
    assert list(models) == ["step-15", "aligned"]
    assert 0 < models["step-15"]["kl"] < models["aligned"]["kl"] < 20
    # 160 completions a policy, whose rewards have a standard deviation of 1.5: chance moves this difference by 0.17.
    assert models["aligned"]["reward"] - models["aligned"]["reference_reward"] > 0.6
    lower = re.search(r"\[([\d.]+)", figures(found["parts"][0], "rloo")["win rate over sft"])
    assert float(lower[1]) > 0.6


@pytest.mark.slow
def test_what_is_told_of_it(compared):
    found, store = compared
    own = figures(found["parts"][0], "rloo")
    assert own["pairs"] == "0"
    assert 64 < int(own["completions"].replace(",", "")) <= 30 * 64
    assert int(own["tokens"].replace(",", "")) > 30 * 64 * 10
    assert figures(found["parts"][0], "threshold")["pairs"] != "0"
    matched = found["parts"][1]
    assert [row[0] for row in matched["rows"]] == ["threshold"]
    assert matched["failed"] == {"rloo": "it has no pairs whose number could be matched"}
    stages = [path.split("/")[0] for path in written(store)]
    assert (stages.count("train_sft"), stages.count("train_reward_model"), stages.count("train_rloo")) == (1, 1, 1)
    assert stages.count("sample_completions") == 1, "of the other arm"
