"""A pilot and the whole run that it predicts, on the quickstart's world at a reduced size."""

import json
import re
import shutil
from pathlib import Path

import pytest
import runs
from runs import on_small_world, written

from flows.command_line import main
from flows.rs_dpo import rs_dpo
from tasks.examples.world import write_world

PILOT = {"data__pilot": 12, "compute__price_per_hour": 3.6}
PRICE = {"compute__price_per_hour": 3.6}
COUNTED = ("pairs", "prompts with", "different", "sampled", "completions in", "DPO tokens", "bytes")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pilot") / "world"
    write_world(folder, seed=0, scale=0.1)
    return folder


@pytest.fixture(scope="module")
def both(world, tmp_path_factory) -> tuple[dict, dict, Path]:
    """What a pilot of 12 of 24 prompts has printed, what the whole run has, and their store."""
    store = tmp_path_factory.mktemp("store")
    pilot = runs.run("quickstart.yaml", **on_small_world(world, store, **PILOT))
    shutil.copytree(store, store.parent / "after_pilot", dirs_exist_ok=True)
    return pilot, runs.run("quickstart.yaml", **on_small_world(world, store, **PRICE)), store


@pytest.mark.slow
def test_what_comes_is_within_the_intervals(both):
    pilot, whole, _ = both
    assert (pilot["pilot"], pilot["prompts"]) == (12, 24)
    assert {name: value["predicted"] for name, value in pilot["prediction"].items()} == {
        name: value["predicted"] for name, value in whole["predicted"].items()
    }
    counted = {name: value for name, value in whole["predicted"].items() if name.startswith(COUNTED)}
    assert len(counted) >= 8
    assert whole["predicted"]["pairs"]["came"] == whole["artifacts"]["pairs"]["rows"]
    assert whole["predicted"]["sampled tokens"]["came"] == whole["metrics"]["completions"]["tokens"]
    outside = {name: value for name, value in counted.items() if not value["low"] <= value["came"] <= value["high"]}
    assert not outside


@pytest.mark.slow
def test_seconds_are_those_still_to_come_and_have_their_price(both):
    predicted = both[1]["predicted"]
    stages = {name.removeprefix("seconds, ") for name in predicted if name.startswith("seconds, ")}
    assert stages == {"sample_completions", "score_completions", "build_pairs", "train_dpo", "evaluate_policy"}
    for column in ("predicted", "came"):
        seconds = sum(value[column] for name, value in predicted.items() if name.startswith("seconds, "))
        assert predicted["seconds"][column] == pytest.approx(seconds)
        assert predicted["cost"][column] == pytest.approx(seconds * 3.6 / 3600)
    assert 0 <= predicted["seconds"]["low"] < predicted["seconds"]["high"]


@pytest.mark.slow
def test_what_a_pilot_sampled_and_scored_counts_for_the_whole_run(both):
    _, whole, store = both
    assert whole["metrics"]["completions"]["sampled_prompts"] == 12
    assert whole["metrics"]["rewards"]["scored"] == 12 * 4
    new = written(store).keys() - written(store.parent / "after_pilot").keys()
    assert not [path for path in new if path.startswith(("train_sft", "train_reward_model"))]


@pytest.mark.slow
def test_the_reports_of_both_say_what_was_predicted(both):
    pilot, whole, _ = both
    page = Path(pilot["report"].removeprefix("file://")).read_text()
    assert "What will the whole run take?" in page
    assert "Did it get better?" not in page, "of a policy that is hardly trained"
    assert {verdict["name"] for verdict in pilot["verdicts"]} >= {"reward_accuracy", "prompts_with_pair"}
    assert not {verdict["name"] for verdict in pilot["verdicts"]} & {"win_rate", "kl_sequence", "chosen_log_ratio"}
    page = Path(whole["report"].removeprefix("file://")).read_text()
    assert "Did it take what was predicted?" in page
    assert "A pilot of 12 prompts predicted this run." in page
    assert re.search(r"This run computed for \d+ s, which is \d\.\d\d at 3.6 an hour", page)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pilot", "1"], "data.pilot = 1: Input should be greater than or equal to 2"),
        (["--pilot", "many"], "data.pilot = 'many': Input should be a valid integer"),
        (["--pilot", "10000"], "data.pilot = 10000 must be less than the 2"),
        (["--pilot", "2", "--set", "pairs.strategy=annotation"], "data.pilot = 2 cannot be with pairs.strategy"),
        (["--pilot", "2", "--set", "pairs.max_pairs=9"], "data.pilot = 2 cannot be with pairs.max_pairs = 9"),
        (["--set", "compute.price_per_hour=-1"], "compute.price_per_hour = -1: Input should be greater than"),
    ],
)
def test_a_pilot_that_cannot_be_is_refused_before_anything_starts(folder, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        main(rs_dpo, [str(folder / "run.yaml"), "--dry-run", *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_dry_run_of_a_pilot_foresees_its_prompts(folder, capsys):
    main(rs_dpo, [str(folder / "run.yaml"), "--dry-run", "--json", "--pilot", "3"])
    steps = {step["stage"]: step for step in json.loads(capsys.readouterr().out.splitlines()[-1])["plan"]}
    assert steps["sample_completions"]["prompts"] == 3
    assert "draw_pilot" in steps
