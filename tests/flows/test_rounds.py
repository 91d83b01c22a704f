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

from flows.rounds import main
from tasks.examples.world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rounds") / "world"
    write_world(folder, seed=0, scale=0.1)
    return folder


def configure(world: Path, store: Path, **fields) -> Path:
    settings = on_small_world(world, store)
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
    config = configure(world, tmp_path / "store")
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
    assert "Round by round" in Path(found["page"].removeprefix("file://")).read_text()
    longer = run(configure(world, tmp_path / "store", rounds=3, patience=3))
    assert longer["rounds"][:2] == found["rounds"], "a longer loop begins with the rounds that are there"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds=0", "rounds = 0: Input should be greater than or equal to 1"),
        ("reward_model=refreshed", "refreshed needs data.preferences = gold"),
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
