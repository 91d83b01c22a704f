"""Rounds of real runs, on the quickstart's world at a reduced size."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import yaml
from runs import on_small_world, wait_until, written

from flows.add_preferences import add_preferences
from flows.rounds import main
from tasks.config.sections import PreferenceSource
from tasks.examples.world import write_world
from tasks.store.artifacts import Artifact
from tasks.store.manifests import read_manifest
from tasks.store.parquet import read_table


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rounds") / "world"
    write_world(folder, seed=0, scale=0.1)
    return folder


def configure(world: Path, store: Path, changes=None, **fields) -> Path:
    settings = on_small_world(world, store, **(changes or {}))
    shared = {name.replace("__", "."): str(v) if isinstance(v, Path) else v for name, v in settings.items()}
    base = str(runs.ROOT / "configs" / "quickstart.yaml")
    path = store.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({"base": base, "set": shared, "rounds": 2, "patience": 2, **fields}))
    return path


def run(config: Path) -> dict:
    command = [sys.executable, "-m", "flows.rounds", str(config), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=runs.ROOT, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
def test_each_round_samples_from_the_policy_before_it_and_a_killed_loop_goes_on(world, tmp_path):
    prompts = {"harmless": str(world / "evaluation_prompts.jsonl")}
    measured = {"evaluation__benchmarks": {"sampling": {"max_new_tokens": 8}, "refusals": prompts}}
    config = configure(world, tmp_path / "store", measured)
    command = [sys.executable, "-m", "flows.rounds", str(config), "--json"]
    with subprocess.Popen(command, cwd=runs.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        wait_until(killed, tmp_path / "store", "train_dpo/*/manifest.json")
        killed.send_signal(signal.SIGKILL)
    before = written(tmp_path / "store")
    found = run(config)
    assert [each["number"] for each in found["rounds"]] == [1, 2]
    assert found["ended"] == "rounds = 2 are done"
    assert len({each["policy"] for each in found["rounds"]}) == 2
    after = written(tmp_path / "store")
    assert all(after[path] == time for path, time in before.items()), "nothing is made again"
    stages = [path.split("/")[0] for path in after]
    assert (stages.count("train_sft"), stages.count("train_reward_model")) == (1, 1)
    assert (stages.count("sample_completions"), stages.count("train_dpo")) == (2, 2)
    assert stages.count("measure_policies") == 2
    assert "Round by round" in Path(found["page"].removeprefix("file://")).read_text()
    longer = run(configure(world, tmp_path / "store", measured, rounds=3, patience=3))
    assert longer["rounds"][:2] == found["rounds"], "a longer loop begins with the rounds that are there"


@pytest.mark.slow
def test_preferences_that_come_between_rounds_count_from_the_next_one_and_pairs_are_kept(world, tmp_path):
    store, rows = tmp_path / "store", (world / "preferences.jsonl").read_text().splitlines(keepends=True)
    add(tmp_path, store, rows[: len(rows) // 2])
    fields = {"reward_model": "refreshed", "keep_pairs": True}
    added = {"data__preferences": "added"}
    (first,) = run(configure(world, store, added, **fields, rounds=1))["rounds"]
    add(tmp_path, store, rows[len(rows) // 2 :])
    add(tmp_path, store, feedback_on(first["made"]), completions=first["made"]["completions"])
    found = run(configure(world, store, added, **fields))["rounds"]
    assert found[0] == first, "a round that was begun keeps the preferences that it began with"
    models = [each["made"]["reward_model"] for each in found]
    kept = [rows_of(each["made"]["preferences"]) for each in found]
    assert models[0] != models[1]
    assert kept[0] < kept[1]
    assert found[1]["pairs"] == sum(rows_of(each["made"]["pairs"]) for each in found), "trained on both rounds' pairs"
    kls = [each["kl"] for each in found]
    bound = {"high": sum(kls) / 2} if kls[1] > kls[0] else {"low": sum(kls) / 2}
    stopped = run(configure(world, store, added | {"monitors__kl_sequence": {"level": "fail", **bound}}, **fields))
    assert stopped["rounds"] == found[:1]
    assert stopped["best"] == 1
    assert stopped["ended"].startswith("round 2 does not count: monitors.kl_sequence stops the run")


def add(folder: Path, store: Path, lines: list[str], completions: str | None = None) -> None:
    (folder / "new.jsonl").write_text("".join(lines))
    assert add_preferences.fn(PreferenceSource(path=str(folder / "new.jsonl")), str(store), completions=completions)[
        "new"
    ]


def feedback_on(made: dict[str, str]) -> list[str]:
    """Return a judgement of a pair of a round, the other way round."""
    pairs = read_manifest(made["pairs"])
    pair = read_table(Artifact(kind="pairs", uri=made["pairs"], digest=pairs.digest)).slice(0, 1).to_pylist()[0]
    sides = {"chosen_id": pair["rejected_id"], "rejected_id": pair["chosen_id"], "annotator": "ann"}
    return [json.dumps({"prompt_id": pair["prompt_id"], **sides}) + "\n"]


def rows_of(uri: str) -> int:
    return read_manifest(uri).rows


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds=0", "rounds = 0: Input should be greater than or equal to 1"),
        ("keep_pairs=maybe", "keep_pairs = 'maybe'"),
        (
            "set={data.preferences: gold, evaluation.gold_reward: {function: 'tasks.rewards.gold:facts'}}",
            "reward_model = fixed and data.preferences = gold do not fit",
        ),
        ("set={pairs.strategy: annotation}", "rounds sample from each policy anew"),
        ("base=nowhere.yaml", "configuration file nowhere.yaml does not exist"),
        ("colour=red", "colour is no known setting"),
    ],
)
def test_what_is_typed_wrong_in_rounds_is_refused(tmp_path, capsys, override, message):
    (tmp_path / "rounds.yaml").write_text("base: configs/quickstart.yaml\n")
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "rounds.yaml"), "--set", override])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
