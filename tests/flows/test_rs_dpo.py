"""The whole flow, on the quickstart's world at a reduced size: real training, real sampling, real processes."""

import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
import runs
from runs import digests, on_small_world, written

from tasks.examples.world import write_world
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.parquet import read_table
from tasks.store.runs import list_runs
from tasks.store.slices import read_slices


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart") / "world"
    write_world(folder, seed=0, scale=0.1)
    return folder


def run(world: Path, store: Path, **changes: object) -> dict:
    return runs.run("quickstart.yaml", **on_small_world(world, store, **changes))


def plan(world: Path, store: Path, **changes: object) -> dict[str, str]:
    return runs.plan("quickstart.yaml", **on_small_world(world, store, **changes))


def completions(result: dict, store: Path) -> pa.Table:
    artifact = Artifact(kind="completions", **{k: result["artifacts"]["completions"][k] for k in ("uri", "digest")})
    return pa.concat_tables([slice_.read() for slice_ in read_slices(Store(str(store)), artifact)])


@pytest.fixture(scope="module")
def first(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """An undisturbed run, and its store."""
    store = tmp_path_factory.mktemp("store")
    return run(world, store), store


def test_every_stage_leaves_its_artifact(first: tuple[dict, Path]) -> None:
    result, store = first
    metrics = result["metrics"]
    assert result["artifacts"]["completions"]["rows"] == 24 * 4
    assert metrics["completions"]["sampled_prompts"] == 24
    gold = metrics["evaluation"]["policies"]["aligned"]["win_rates"]["gold"]
    assert 0 <= gold["low"] <= gold["win_rate"] <= gold["high"] <= 1
    assert not list((store / "checkpoints").glob("*/*/*/manifest.json")), "checkpoints outlive their stage"
    logged = {row["metric"] for row in training_log(result, "aligned").to_pylist()}
    assert {"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "loss"} <= logged


def training_log(result: dict, name: str) -> pa.Table:
    artifact = result["artifacts"][name]
    table = read_table(Artifact(kind="training_log", uri=artifact["uri"], digest=artifact["digest"]))
    assert table.num_rows > 0
    return table


def test_first_dpo_loss_is_ln_2(first: tuple[dict, Path]) -> None:
    losses = [row for row in training_log(first[0], "aligned").to_pylist() if row["metric"] == "loss"]
    assert losses[0]["value"] == pytest.approx(0.693, abs=0.1)


def test_a_monitor_that_fails_stops_the_run_before_the_next_stage(world: Path, first: tuple[dict, Path]) -> None:
    result, store = first
    assert {verdict["level"] for verdict in result["verdicts"]} >= {"ok"}
    page = Path(result["report"].removeprefix("file://")).read_text()
    assert "Did it get better?" in page
    settings = on_small_world(world, store, monitors__prompts_with_pair="{low: 1.5, level: fail}")
    arguments = runs.command("quickstart.yaml", **settings)
    stopped = subprocess.run(arguments, capture_output=True, text=True, cwd=runs.ROOT, timeout=300)
    assert stopped.returncode == 1
    assert "error: monitors.prompts_with_pair stops the run after build_pairs: share of the prompts" in stopped.stderr
    assert "set monitors.prompts_with_pair.level to warn" in stopped.stderr
    last = list_runs(Store(str(store)))[0][-1]
    assert last.stages[-1].startswith("build_pairs/")
    assert last.status == "running"
    assert [verdict["name"] for verdict in last.verdicts if verdict["level"] == "fail"] == ["prompts_with_pair"]
    page = (store / "runs" / last.id / "report.html").read_text()
    assert "What was trained on?" in page
    assert "Did it get better?" not in page


@pytest.mark.slow
def test_a_second_reward_model_evaluates_and_selects_no_pair(world: Path, first: tuple[dict, Path]) -> None:
    result, store = first
    before = written(store)
    found = run(world, store, reward_model__held_out="true")
    new = [path.split("/")[0] for path in written(store).keys() - before.keys()]
    assert new.count("train_reward_model") == 2
    assert found["metrics"]["reward_model"]["examples"] < result["metrics"]["reward_model"]["examples"]
    rewards = found["metrics"]["evaluation"]["policies"]["aligned"]["win_rates"]
    assert rewards.keys() == {"reward_model", "held_out_model", "gold"}
    assert {"aligned, held_out_model"} <= {verdict["about"] for verdict in found["verdicts"]}
    judged = {verdict["about"] for verdict in found["verdicts"] if verdict["name"] == "reward_accuracy"}
    assert judged == {"", "held_out_model"}, "a reward model that evaluates must be worth something itself"


def test_second_run_computes_nothing(world: Path, first: tuple[dict, Path]) -> None:
    result, store = first
    before = written(store)
    assert set(plan(world, store).values()) == {"reuse"}
    assert digests(run(world, store)) == digests(result)
    assert written(store) == before


def test_eta_alone_repeats_pairs_dpo_and_evaluation(world: Path, first: tuple[dict, Path]) -> None:
    result, store = first
    actions = plan(world, store, pairs__eta=0.6)
    assert {stage for stage, action in actions.items() if action == "compute"} == {
        "build_pairs",
        "train_dpo",
        "evaluate_policy",
    }
    before = written(store)
    again = run(world, store, pairs__eta=0.6)
    new = {path.split("/")[0] for path in written(store).keys() - before.keys()} - {"tables"}
    assert new == {"build_pairs", "train_dpo", "evaluate_policy"}
    same = ("prompts", "policy", "completions", "reward_model", "rewards")
    assert all(digests(again)[name] == digests(result)[name] for name in same)


def test_new_prompts_alone_are_sampled_and_scored(world: Path, first: tuple[dict, Path]) -> None:
    result, store = first
    grown = run(world, store, data__max_prompts=29)
    assert grown["metrics"]["completions"]["sampled_prompts"] == 5
    assert grown["metrics"]["rewards"]["scored"] == 5 * 4
    ours, before = completions(grown, store), completions(result, store)
    assert ours.num_rows == 29 * 4
    kept = set(before["prompt_id"].to_pylist())
    order = [("prompt_id", "ascending"), ("completion_id", "ascending")]
    assert ours.filter(pa.array([i in kept for i in ours["prompt_id"].to_pylist()])).sort_by(order) == before.sort_by(
        order
    )


def kill_when(world: Path, store: Path, appears: str) -> None:
    """Start the run, and SIGKILL its whole process group as soon as a path matches in the store."""
    with runs.started(store.parent / "output", "quickstart.yaml", **on_small_world(world, store)) as process:
        runs.wait_until(process, store, appears)


@pytest.fixture(scope="module")
def survivor(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path, dict]:
    """A run killed in training, sampling, scoring and DPO, then left to end; with the manifests at each kill."""
    store = tmp_path_factory.mktemp("killed")
    parts = {}
    for stage, appears in (
        ("train_sft", "checkpoints/train_sft/*/step-10/manifest.json"),
        ("sample_completions", "tables/completions/*/*/manifest.json"),
        ("score_completions", "tables/rewards/*/*/manifest.json"),
        ("train_dpo", "checkpoints/train_dpo/*/step-4/manifest.json"),
    ):
        kill_when(world, store, appears)
        parts[stage] = written(store)
    return run(world, store), store, parts


@pytest.mark.slow
def test_killed_runs_end_with_the_undisturbed_result(first: tuple[dict, Path], survivor: tuple) -> None:
    result, _, _ = survivor
    assert digests(result) == digests(first[0])


@pytest.mark.slow
def test_nothing_is_computed_again_but_the_part_in_flight(survivor: tuple) -> None:
    _, store, parts = survivor
    now = written(store)
    for stage, then in parts.items():
        kept = {path: time for path, time in then.items() if not path.startswith("checkpoints/")}
        assert kept.items() <= now.items(), f"rewritten after the kill in {stage}"


@pytest.mark.slow
def test_no_completion_is_lost_or_doubled(survivor: tuple) -> None:
    result, store, _ = survivor
    table = completions(result, store)
    ids = list(zip(table["prompt_id"].to_pylist(), table["completion_id"].to_pylist(), strict=True))
    assert len(ids) == len(set(ids)) == 24 * 4
