"""The golden file of all defaults: none changes without a new version."""

import json

from defaults import GOLDEN, TABLES, all_defaults, all_stages, changed_alone, modules_with

from tasks.store.artifacts import Artifact

MODEL = Artifact(kind="model", uri="s3://b/model", digest="ab")


def test_no_default_changed_without_a_new_version():
    assert changed_alone(json.loads(GOLDEN.read_text()), all_defaults()) == []


def test_the_golden_file_is_up_to_date():
    assert json.loads(GOLDEN.read_text()) == all_defaults(), "run: python -m tests.defaults"


def test_every_stage_and_every_table_is_in_the_golden_file():
    assert {"train_dpo", "store_model", "load_evaluation_prompts", "sample_completions"} <= all_stages().keys()
    assert {module.__name__ for module, _, _ in TABLES.values()} == {
        m.__name__ for m in modules_with("\nTABLE_VERSION =")
    }


def test_a_changed_default_needs_a_new_version():
    old = {"stage s": {"version": 1, "defaults": {"a.b": 1, "a.gone": 1}}}
    new = {"stage s": {"version": 1, "defaults": {"a.b": 2, "a.new": 0}}, "stage t": {"version": 1, "defaults": {}}}
    assert changed_alone(old, new) == ["stage s (version 1): a.b was 1, is 2"]
    new["stage s"]["version"] = 2
    assert changed_alone(old, new) == []
    assert changed_alone(old, old) == []
