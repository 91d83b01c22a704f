"""What a run is said to wait for is what its dry run foresees."""

import json

import pytest

from flows.add_preferences import add_preferences
from flows.command_line import foresee, load_config
from flows.rs_dpo import rs_dpo
from flows.stage_order import stage_order
from tasks.config.sections import DataSource

CHANGES = {
    "as it is": (),
    "a policy to train": ("sft.ready_model=null", "sft.base_model={model}", "data.demonstrations={demonstrations}"),
    "gold labels": ("data.preferences=gold", "evaluation.gold_reward.function=tasks.rewards.gold:facts"),
    "preferences that were added": ("data.preferences=added",),
    "the data's own pairs": ("pairs.strategy=annotation",),
    "pairs that were added": ("pairs.strategy=annotation", "data.preferences=added"),
    "another base for rewards": ("reward_model.base_model={model}",),
    "fewer evaluation prompts": ("data.max_evaluation_prompts=2",),
    "models along the way": ("dpo.snapshots=2",),
    "a pilot": ("data.pilot=2",),
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_the_order_is_that_of_the_dry_run(folder, test_data, changes):
    rows = [{"prompt": f"Question {number}?", "completion": "yes"} for number in range(40)]
    (folder / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = {"model": test_data / "stories260k", "demonstrations": folder / "demonstrations.jsonl"}
    overrides = [change.format(**places) for change in changes]
    config = load_config(str(folder / "run.yaml"), overrides)
    add_preferences.fn(DataSource(path=str(folder / "pairs.jsonl")), config.store)
    assert list(stage_order(config)) == [step["stage"] for step in foresee(rs_dpo, config.sections()).steps]
