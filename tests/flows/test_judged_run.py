"""A run whose preferences and rewards are a judge's: real processes, and a judge that says what a test can count."""

from pathlib import Path

import pytest
import runs
from judge_server import MODEL, asked_text, judging
from runs import digests, on_small_world

from tasks.examples.world import write_world
from tasks.rewards.candidates import named_values
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.manifests import reference
from tasks.store.parquet import read_table
from tasks.store.slices import read_slices, read_sorted


def between(text: str, mark: str) -> str:
    return text.partition(f"[Start of {mark}]\n")[2].partition(f"\n[End of {mark}]")[0]


def rated(text: str) -> int:
    return max(1, 10 - len(text.split()))


def says(request: dict, number: int) -> str:
    """Rate an answer by how short it is, and prefer the shorter of two."""
    asked = asked_text(request)
    if "[Start of answer A]" not in asked:
        return f"It has some words. [[{rated(between(asked, 'the answer'))}]]"
    a, b = (len(between(asked, f"answer {side}").split()) for side in "AB")
    return "[[C]]" if a == b else f"[[{'A' if a < b else 'B'}]]"


@pytest.mark.slow
def test_a_judge_labels_and_rewards_and_is_asked_once(tmp_path: Path) -> None:
    write_world(tmp_path / "world", seed=0, scale=0.1)
    store = tmp_path / "store"
    with judging(says) as server:
        judge = f"{{model: {MODEL}, base_url: '{server.url}', api_key_variable: null}}"
        settings = {
            "data__preferences": "judged",
            "data__judge": judge,
            "rewards.terse.judge": judge,
            "pairs.rewards.reward_model.scale": "standardised",
            "pairs.rewards.terse.weight": "2",
        }
        small = on_small_world(tmp_path / "world", store, **settings)
        first = runs.run("quickstart.yaml", **small)
        asked = len(server.requests)
        other = runs.run("quickstart.yaml", **{**small, "pairs.rewards.terse.weight": "0.5"})
        again = server.requests[asked:]
    texts = read_sorted(read_slices(Store(str(store)), artifact(first, "completions")))["completion"].to_pylist()
    rewards = named_values(read_sorted(read_slices(Store(str(store)), artifact(first, "rewards"))), "rewards")
    assert rewards["terse"].tolist() == [rated(text) for text in texts]
    assert digests(first)["reward_model"] == digests(other)["reward_model"]
    assert not [request for request in again if "[Start of answer A]" in asked_text(request)]
    known = {text.strip() for text in texts}
    assert not [request for request in again if between(asked_text(request), "the answer") in known]
    (labelled,) = (store / "judge_preferences").iterdir()
    rows = read_table(reference(f"file://{labelled}")).to_pylist()
    assert rows
    assert all(len(row["chosen"].split()) < len(row["rejected"].split()) for row in rows)
    assert first["metrics"]["evaluation"]["policies"]["sft"]["rewards"].keys() == {
        "reward_model",
        "terse",
        "combined",
        "gold",
    }


def artifact(result: dict, name: str) -> Artifact:
    kind = {"completions": "completions", "rewards": "combined_rewards"}[name]
    return Artifact(kind=kind, **{key: result["artifacts"][name][key] for key in ("uri", "digest")})
