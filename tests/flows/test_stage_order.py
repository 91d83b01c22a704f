"""What a run is said to wait for is what its dry run foresees."""

import json

import pytest

from flows.add_preferences import add_preferences
from flows.command_line import foresee
from flows.config_files import load_config, load_values
from flows.inputs import other_models
from flows.rloo import rloo
from flows.rs_dpo import rs_dpo
from flows.stage_order import stage_order
from tasks.config.errors import ConfigurationError
from tasks.config.sections import PreferenceSource
from tasks.pipeline.configuration import RlooRun
from tasks.store.artifacts import NOTHING, Artifact

BENCHMARKS = "{{sampling: {{max_new_tokens: 8}}, refusals: {{harmless: {demonstrations}}}}}"
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
    "the best model along the way": ("dpo.snapshots=2", "dpo.keep=best", "reward_model.held_out=true"),
    "a pilot": ("data.pilot=2",),
    "benchmarks": (f"evaluation.benchmarks={BENCHMARKS}",),
    "a pilot, which is not measured": ("data.pilot=2", f"evaluation.benchmarks={BENCHMARKS}"),
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_the_order_is_that_of_the_dry_run(folder, test_data, changes):
    rows = [{"prompt": f"Question {number}?", "completion": "yes"} for number in range(40)]
    (folder / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = {"model": test_data / "stories260k", "demonstrations": folder / "demonstrations.jsonl"}
    overrides = [change.format(**places) for change in changes]
    config = load_config(str(folder / "run.yaml"), overrides)
    add_preferences.fn(PreferenceSource(path=str(folder / "pairs.jsonl")), config.store)
    assert list(stage_order(config)) == [step["stage"] for step in foresee(rs_dpo, config.sections()).steps]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data.preferences": "gold", "evaluation.gold_reward.function": "tasks.rewards.gold:facts"},
        {"rloo.snapshots": 2},
        {"evaluation.benchmarks": {"sampling": {"max_new_tokens": 8}, "refusals": {"harmless": "pairs.jsonl"}}},
    ],
    ids=str,
)
def test_so_is_that_of_rloo(folder, changes, monkeypatch):
    monkeypatch.chdir(folder)
    small = {"rloo.k": 2, "rloo.batch_size": 4}
    config = load_values(str(folder / "run.yaml"), {**small, **changes}, RlooRun)
    steps = foresee(rloo, config.sections()).steps
    assert list(stage_order(config)) == [step["stage"] for step in steps]
    (online,) = (step for step in steps if step["stage"] == "train_rloo")
    assert online["completions"] == online["steps"] * 4


def test_too_few_prompts_for_a_step_are_told_before_anything_runs(folder):
    config = load_values(str(folder / "run.yaml"), {"rloo.k": 2, "rloo.batch_size": 2000}, RlooRun)
    with pytest.raises(ConfigurationError, match="takes 1000 prompts an optimizer step, and there are"):
        foresee(rloo, config.sections())


def test_models_that_rewards_share_read_the_prompts_once():
    section, other = (Artifact(kind="model", uri=name, digest=name) for name in ("section", "other"))
    bases = {"reward_model": section, "held_out": section, "kind": other, "sure.1": other, "of the policy": NOTHING}
    assert other_models(bases) == {"kind": other}
