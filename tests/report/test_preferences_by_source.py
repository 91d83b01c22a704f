"""The counts of each source of preferences, as the report shows them."""

from tasks.pipeline.configuration import Config
from tasks.report.facts import Facts
from tasks.report.preferences import source_table
from tasks.report.reward import reward_section
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store

CONFIG = Config.model_validate({"data": {"prompts": "x", "preferences": "a"}, "sft": {"ready_model": "y"}})
ONE = {"rows": 2000, "read": 2400, "bad": {"empty chosen": 1}, "left_out": {"tie": 99}, "kept": 2300}
TWO = {"rows": 3, "read": 3, "bad": {}, "left_out": {}, "kept": 3, "contradicting": 2}


def facts(tmp_path, stats):
    preferences = Artifact(kind="preferences", uri="u", digest="d", rows=1, stats=stats)
    model = Artifact(kind="model", uri="m", digest="m", rows=0, stats={"accuracy": None})
    made = {"load_preferences": preferences, "train_reward_model": model}
    return Facts(Store(str(tmp_path)), CONFIG, artifacts=made, reward_models={"reward_model": model})


def test_each_source_is_a_row_under_the_reward_model(tmp_path):
    given = facts(tmp_path, {"read": 2403, "sources": {"one": ONE, "two": TWO}})
    table = source_table(given)
    assert list(table.rows) == [
        ("one", "2,000", "2,400", "2,300", "0", "tie: 99; empty chosen: 1"),
        ("two", "3", "3", "3", "2", ""),
    ]
    assert reward_section(given).blocks[0] == table


def test_one_source_has_no_table(tmp_path):
    assert source_table(facts(tmp_path, {"read": 3, "bad": {}, "left_out": {}})) is None
