"""A comparison of real runs, on the quickstart's world at a reduced size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import yaml
from runs import on_small_world, written

from flows.compare import main
from tasks.examples.world import write_world

ARMS = {
    "threshold": {},
    "best vs worst": {"pairs.strategy": "best_vs_worst"},
    "impossible": {"pairs.tau": 1000},
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> tuple[dict, str, Path]:
    """What a comparison of three arms, one of them without a pair, has printed, and its configuration."""
    folder = tmp_path_factory.mktemp("compare")
    write_world(folder / "world", seed=0, scale=0.1)
    settings = on_small_world(folder / "world", folder / "store", dpo__snapshots=1)
    shared = {name.replace("__", "."): str(v) if isinstance(v, Path) else v for name, v in settings.items()}
    base = str(runs.ROOT / "configs" / "quickstart.yaml")
    prompts = {"harmless": str(folder / "world/evaluation_prompts.jsonl")}
    shared["evaluation.benchmarks"] = {"sampling": {"max_new_tokens": 8}, "refusals": prompts}
    config = {"base": base, "set": shared, "arms": ARMS, "seeds": [0, 1], "size_matched": True}
    (folder / "compare.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return *run(folder / "compare.yaml"), folder


def run(config: Path) -> tuple[dict, str]:
    command = [sys.executable, "-m", "flows.compare", str(config), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=runs.ROOT, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1]), done.stdout


@pytest.mark.slow
def test_arms_are_compared_and_one_without_pairs_does_not_stop_the_others(compared):
    found, printed, _ = compared
    part, matched = found["parts"]
    least = matched["name"].split()[1]
    assert [row[7] for row in matched["rows"]] == ["-", least, least]
    assert all(int(row[7].replace(",", "")) >= int(least.replace(",", "")) for row in part["rows"][1:])
    assert [(each["arm"], each["other"]) for each in part["verdicts"]] == [("threshold", "best vs worst")]
    assert [row[0] for row in part["rows"]] == ["sft", "threshold", "best vs worst"]
    measured = part["benchmarks"]
    assert measured["head"] == ["benchmark", "sft", "threshold", "best vs worst"]
    assert [row[0] for row in measured["rows"]] == ["refusals: refused of harmless prompts (%)"]
    assert "-" not in measured["rows"][0]
    assert "impossible has no result: seed 1: no pair was selected" in printed
    page = Path(found["page"].removeprefix("file://")).read_text()
    assert "What did each arm gain?" in page
    assert page.count("<svg") >= 2
    assert "How did the trainings go?" in page
    assert "How does each arm do on benchmarks?" in page


@pytest.mark.slow
def test_what_arms_share_is_computed_once(compared):
    stages = [path.split("/")[0] for path in written(compared[2] / "store")]
    assert stages.count("train_sft") == 1
    assert stages.count("train_reward_model") == 1
    assert stages.count("sample_completions") == 2, "one a seed"
    assert stages.count("score_completions") == 2
    trained = stages.count("train_dpo")
    assert 4 < trained < 8, "as many again with fewer pairs, but for the arm that has the fewest"
    assert stages.count("dpo_snapshot") == trained
    assert stages.count("evaluate_policy") == 2 * trained, "of the last model, and of those along the way"


@pytest.mark.slow
def test_a_comparison_that_is_run_again_computes_nothing(compared):
    found, _, folder = compared
    before = written(folder / "store")
    again, _ = run(folder / "compare.yaml")
    assert again == found
    assert written(folder / "store") == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds=[0,0]", "seeds = [0, 0] must be different numbers"),
        ("arms={a: {}, b: {}}", "the arms a and b are the same"),
        ("arms={a: {pairs.eta: 2}}", "in the arm a"),
        ("base=nowhere.yaml", "configuration file nowhere.yaml does not exist"),
        ("colour=red", "colour is no known setting"),
    ],
)
def test_what_is_typed_wrong_is_refused(tmp_path, capsys, override, message):
    (tmp_path / "compare.yaml").write_text("base: configs/quickstart.yaml\narms: {a: {}}\n")
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "compare.yaml"), "--set", override, "--dry-run"])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_dry_run_lists_the_runs(tmp_path, capsys):
    text = "base: configs/quickstart.yaml\nseeds: [0, 1]\narms: {a: {pairs.eta: [0.8, 0.9]}}\n"
    (tmp_path / "compare.yaml").write_text(text)
    main([str(tmp_path / "compare.yaml"), "--dry-run"])
    assert capsys.readouterr().out.splitlines() == [
        f"a, eta {eta}, seed {seed}" for eta in (0.8, 0.9) for seed in (0, 1)
    ]
