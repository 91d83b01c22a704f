"""The chain on real models and data, at a reduced size: stories in file and S3 stores, Anthropic's HH."""

from pathlib import Path

import pytest
from runs import digests, plan, run

from tasks.store.artifacts import Artifact
from tasks.store.parquet import read_table

STORIES = {
    "data__max_prompts": 12,
    "data__max_evaluation_prompts": 4,
    "reward_model__max_steps": 4,
    "sampling__part_size": 6,
    "sampling__max_new_tokens": 32,
    "pairs__tau": 0.02,
    "dpo__max_steps": 3,
    "evaluation__k": 2,
}


@pytest.mark.parametrize("store_uri", ["s3"], indirect=True)
def test_stories(store_uri: str, test_data: Path) -> None:
    result = run("stories.yaml", **STORIES, store=store_uri)
    metrics = result["metrics"]
    assert result["artifacts"]["completions"]["rows"] == 12 * 16
    assert metrics["completions"]["truncation_rate"] == 1.0
    assert metrics["pairs"]["prompts"] == 12
    policies = metrics["evaluation"]["policies"]
    assert -1 < policies["sft"]["rewards"]["gold"]["mean"] < 1
    assert policies["sft"]["truncated"] == policies["aligned"]["divergence"]["truncated"] == 4 * 2
    assert policies["aligned"]["finished_win_rates"]["gold"] is None
    assert result["artifacts"]["aligned"]["uri"].startswith(store_uri)
    assert set(plan("stories.yaml", **STORIES, store=store_uri).values()) == {"reuse"}


HH = {
    "sampling__k": 4,
    "sampling__max_new_tokens": 24,
    "data__max_prompts": 64,
    "data__max_evaluation_prompts": 8,
    "data__max_bad_fraction": 1,  # a quarter of the prompts is longer than the story model's context
    "reward_model__max_steps": 2,
    "reward_model__batch_size": 8,
    "reward_model__max_length": 160,
    "pairs__tau": 0.001,
    "pairs__truncated": "keep",
    "dpo__max_steps": 2,
    "dpo__batch_size": 8,
}


@pytest.fixture(scope="module")
def hh(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    pairs = test_data / "hh-rlhf/helpful-base_test.jsonl.gz"
    model = {"sft__ready_model": test_data / "stories260k", "data__prompts": pairs, "data__preferences": pairs}
    return {**HH, **model, "store": tmp_path_factory.mktemp("hh")}


@pytest.fixture(scope="module")
def hh_result(hh: dict[str, object]) -> dict:
    return run("hh.yaml", **hh)


@pytest.mark.slow
def test_hh_with_adapters(hh_result: dict) -> None:
    assert hh_result["artifacts"]["completions"]["rows"] == 64 * 4
    prompts = artifact(hh_result, "prompts")
    assert max(len(messages) for messages in prompts["messages"].to_pylist()) > 3, "no multi-turn prompt"
    bad = hh_result["metrics"]["prompts"]["bad"]
    assert bad["empty message content"] == 1


@pytest.mark.slow
def test_hh_annotated_pairs_need_no_sampling(hh: dict[str, object], hh_result: dict) -> None:
    settings = {**hh, "pairs__strategy": "annotation", "dpo__max_length": 512}
    assert "sample_completions" not in plan("hh.yaml", **settings)
    result = run("hh.yaml", **settings)
    assert digests(result)["reward_model"] == digests(hh_result)["reward_model"]
    pairs = artifact(result, "pairs")
    assert set(pairs["chosen_id"].to_pylist()) <= {0, 2, 4}
    assert [chosen + 1 for chosen in pairs["chosen_id"].to_pylist()] == pairs["rejected_id"].to_pylist()


def artifact(result: dict, name: str):
    found = result["artifacts"][name]
    return read_table(Artifact(kind=name, uri=found["uri"], digest=found["digest"]))


@pytest.mark.slow
def test_two_processes_train_a_like_model(hh: dict[str, object], hh_result: dict, tmp_path: Path) -> None:
    two = run("hh.yaml", **{**hh, "reward_model__devices": 2, "store": tmp_path})
    same = ("prompts", "completions")
    assert all(digests(two)[name] == digests(hh_result)[name] for name in same)
    ours, theirs = (result["metrics"]["reward_model"] for result in (two, hh_result))
    assert ours["examples"] == theirs["examples"]
    # Sums are in another order, so the models are alike and need not be equal.
    assert ours["reward_mean"] == pytest.approx(theirs["reward_mean"], abs=0.01)
