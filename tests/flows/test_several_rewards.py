"""Runs with several rewards, on the quickstart's world at a reduced size: real training, sampling and processes."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import runs
from judge_server import MODEL, judging
from runs import ROOT, command, digests, on_small_world

from tasks.benchmarks.outcomes import read_outcomes
from tasks.examples.world import write_world
from tasks.rewards.candidates import named_values
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.manifests import reference
from tasks.store.parquet import read_table
from tasks.store.slices import read_slices, read_sorted

SOURCE = """
def brief(messages, completion):
    return -float(len(completion.split()))

def picky(messages, completion, at):
    if len(completion.split()) > at:
        raise ValueError(f"{len(completion.split())} words are too many")
    print("counted")
    return len(completion)

def odd(messages, completion, gives):
    return {"none": None, "text": "1.0", "nan": float("nan"), "list": [1.0]}[gives]
"""
BOTH = {
    "rewards.brief.function": "own_rewards:brief",
    "pairs.rewards.reward_model.scale": "standardised",
    "pairs.rewards.brief": "{scale: standardised, weight: 0.5}",
}
MEMBERS = "[{max_steps: 4, learning_rate: 1.0e-3}, {max_steps: 4, learning_rate: 1.0e-3, seed: 1}]"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart") / "world"
    write_world(folder, seed=0, scale=0.1)
    (folder.parent / "own_rewards.py").write_text(SOURCE)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def functions(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{world.parent}:{ROOT}")


def run(world: Path, store: Path, rewards: dict[str, str]) -> dict:
    return runs.run("quickstart.yaml", **on_small_world(world, store, **rewards))


def artifact(result: dict, name: str, kind: str) -> Artifact:
    return Artifact(kind=kind, **{key: result["artifacts"][name][key] for key in ("uri", "digest")})


@pytest.fixture(scope="module")
def first(world: Path, store: Path) -> dict:
    return run(world, store, {})


@pytest.fixture(scope="module")
def second(first: dict, world: Path, store: Path) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{world.parent}:{ROOT}")
        return run(world, store, BOTH)


def test_another_reward_scores_what_is_there_and_draws_nothing(first: dict, second: dict, store: Path) -> None:
    one, two = digests(first), digests(second)
    assert all(one[name] == two[name] for name in ("policy", "completions", "reward_model"))
    rows = read_sorted(read_slices(Store(str(store)), artifact(second, "rewards", "combined_rewards")))
    rewards, terms = named_values(rows, "rewards"), named_values(rows, "terms")
    texts = read_sorted(read_slices(Store(str(store)), artifact(second, "completions", "completions")))["completion"]
    np.testing.assert_array_equal(rewards["brief"], [-len(text.split()) for text in texts.to_pylist()])
    known = read_sorted(read_slices(Store(str(store)), artifact(first, "rewards", "rewards")))["reward"]
    np.testing.assert_array_equal(rewards["reward_model"], known.to_numpy())
    for name, values in terms.items():
        np.testing.assert_allclose(values, (rewards[name] - rewards[name].mean()) / rewards[name].std(), atol=1e-5)
    np.testing.assert_allclose(rows["reward"].to_numpy(), terms["reward_model"] + 0.5 * terms["brief"], atol=1e-5)


def test_pairs_are_selected_by_the_combined_reward(second: dict, store: Path) -> None:
    rows = read_sorted(read_slices(Store(str(store)), artifact(second, "rewards", "combined_rewards"))).to_pylist()
    reward = {(row["prompt_id"], row["completion_id"]): row["reward"] for row in rows}
    for pair in read_table(artifact(second, "pairs", "pairs")).to_pylist():
        assert pair["chosen_reward"] == reward[pair["prompt_id"], pair["chosen_id"]]
        assert pair["reward_gap"] == pytest.approx(pair["chosen_reward"] - pair["rejected_reward"], abs=1e-5)


def test_policies_are_compared_by_each_reward_and_by_the_combined_one(second: dict) -> None:
    policies = second["metrics"]["evaluation"]["policies"]
    assert policies["aligned"]["rewards"].keys() == {"reward_model", "brief", "combined", "gold"}
    fits = second["metrics"]["rewards"]["fits"]
    means = {name: own["mean"] for name, own in policies["sft"]["rewards"].items()}
    terms = {name: (means[name] - fits[name]["mean"]) / fits[name]["std"] for name in fits}
    assert means["combined"] == pytest.approx(terms["reward_model"] + 0.5 * terms["brief"], abs=1e-4)


@pytest.mark.slow
def test_other_weights_score_nothing(second: dict, world: Path, store: Path) -> None:
    scored = sorted((store / "score_completions").iterdir())
    other = run(world, store, {**BOTH, "pairs.rewards.brief": "{scale: rank, weight: 2}", "pairs.combine": "min"})
    assert sorted((store / "score_completions").iterdir()) == scored
    assert digests(other)["rewards"] != digests(second)["rewards"]


@pytest.mark.slow
def test_an_ensemble_a_gate_and_pareto_pairs(first: dict, world: Path, store: Path) -> None:
    settings = {
        "rewards.sure.ensemble": MEMBERS,
        "rewards.brief.function": "own_rewards:brief",
        "pairs.rewards.sure.uncertainty": "1",
        "pairs.rewards.reward_model": "{}",
        "pairs.rewards.brief": "{weight: 0, at_least: -8}",
        "pairs.strategy": "pareto",
        "pairs.eta": "0.5",
    }
    made = run(world, store, settings)
    assert {"rewards.sure.1", "rewards.sure.2", "reward_model"} <= made["artifacts"].keys()
    rows = read_sorted(read_slices(Store(str(store)), artifact(made, "rewards", "combined_rewards")))
    terms, brief = named_values(rows, "terms"), named_values(rows, "rewards")["brief"]
    np.testing.assert_array_equal(rows["passes"].to_numpy(zero_copy_only=False), brief >= -8)
    ids = zip(rows["prompt_id"].to_pylist(), rows["completion_id"].to_pylist(), strict=True)
    place = {id_: number for number, id_ in enumerate(ids)}
    pairs = read_table(artifact(made, "pairs", "pairs")).to_pylist()
    assert pairs
    for pair in pairs:
        chosen, rejected = (place[pair["prompt_id"], pair[f"{side}_id"]] for side in ("chosen", "rejected"))
        assert brief[chosen] >= -8
        assert all(values[chosen] > values[rejected] for values in terms.values())


@pytest.mark.slow
def test_a_run_without_any_reward_model(world: Path, store: Path) -> None:
    settings = {"rewards.brief.function": "own_rewards:brief", "data.preferences": "null", "pairs.tau": "0.5"}
    made = run(world, store, settings)
    assert "reward_model" not in made["artifacts"]
    win = made["metrics"]["evaluation"]["policies"]["aligned"]["win_rates"]
    assert win.keys() == {"brief", "gold"}
    kept = Path(made["artifacts"]["rewards.brief"]["uri"].removeprefix("file://"))
    assert [path.read_text() for path in kept.rglob("source.py")] == [SOURCE]


def test_a_function_that_gives_no_number_stops_the_run_by_name(first: dict, world: Path, store: Path) -> None:
    settings = {"rewards.odd": "{function: 'own_rewards:odd', options: {gives: none}}", "pairs.rewards.odd": "{}"}
    arguments = command("quickstart.yaml", **on_small_world(world, store, **settings))
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "it returned None, and not a number" in done.stderr
    assert "rewards.odd gives 96 of 96 completions no reward, first " in done.stderr
    assert "and its max_failed is 0.01" in done.stderr


@pytest.mark.slow
def test_rows_that_a_function_fails_on_are_counted_and_in_no_pair(first: dict, world: Path, store: Path) -> None:
    picky = "{function: 'own_rewards:picky', options: {at: 6}, max_failed: 1}"
    made = run(world, store, {"rewards.picky": picky, "pairs.rewards.picky": "{}"})
    rows = read_sorted(read_slices(Store(str(store)), artifact(made, "rewards", "rewards")))["reward"].to_numpy()
    texts = read_sorted(read_slices(Store(str(store)), artifact(made, "completions", "completions")))["completion"]
    failed = [len(text.split()) > 6 for text in texts.to_pylist()]
    assert np.isnan(rows).tolist() == failed
    assert made["metrics"]["rewards"]["failed"] == sum(failed) > 0


@pytest.mark.slow
def test_benchmarks_measure_both_policies_and_stand_in_the_report(first: dict, world: Path, store: Path) -> None:
    rows = [json.dumps({"instruction": text, "output": "no"}) for text in ("the cat", "the dog")]
    (world / "asked.jsonl").write_text("\n".join(rows))
    with judging(lambda request, number: "[[A]]" if number % 2 else "[[C]]") as server:
        judge = json.dumps(server.config().model_dump(mode="json", exclude_unset=True))
        settings = {
            "evaluation.benchmarks.judge": judge,
            "evaluation.benchmarks.sampling": "{max_new_tokens: 8}",
            "evaluation.benchmarks.win_rate": f"{{instructions: {world}/asked.jsonl}}",
            "evaluation.benchmarks.refusals": f"{{harmless: {world}/evaluation_prompts.jsonl}}",
            "evaluation.benchmarks.bootstrap_samples": "100",
        }
        made = run(world, store, settings)
        asked = len(server.requests)
        assert digests(run(world, store, settings)) == digests(made)
        assert 0 < asked == len(server.requests), "the second run asks nothing"
    assert {name: own for name, own in digests(made).items() if name != "benchmarks"} == digests(first)
    outcomes = read_outcomes(reference(made["artifacts"]["benchmarks"]["uri"]))
    policies = {name: {each.policy for each in own.figures} for name, own in outcomes.items()}
    assert policies == {"win_rate": {"sft", "aligned"}, "refusals": {"sft", "aligned"}}
    report = Path(made["report"].removeprefix("file://")).read_text()
    assert "How does it do on benchmarks?" in report
    assert f"The judge was {MODEL}." in report
