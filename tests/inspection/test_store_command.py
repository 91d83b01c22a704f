"""python -m flows.store: what it prints for people and programs, and one message where something is wrong."""

import json
import subprocess
import sys
from typing import NamedTuple

import pyarrow as pa
import pytest
from chains import checkpoint, hex_of, output, record
from runs import ROOT

from flows.store import main
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.manifests import read_files
from tasks.store.parquet import table_bytes
from tasks.store.runs import Run, RunRecord
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest
from tasks.store.slices import Slice, commit_slices

ASKED, OTHER = "3fa90c" + "0" * 58, "3fb" + "1" * 61
TEXTS, REWARDS = ["red", "\x1b[2Jblue", "[bold]green"], [2.0, -1.5, 0.25]


class Made(NamedTuple):
    policy: Artifact
    reward_model: Artifact
    prompts: Artifact
    completions: Artifact
    rewards: Artifact
    pairs: Artifact


def draft(store: Store, stage: str, **inputs: Artifact) -> Draft:
    digests = {name: artifact.digest for name, artifact in inputs.items()}
    return Draft(store, Provenance(stage=stage, version=1, key=hex_of(stage), inputs=digests))


def table(kind: str, *rows: dict) -> pa.Table:
    empty = {field.name: None for field in SCHEMAS[kind]}
    return pa.Table.from_pylist([{**empty, **row} for row in rows], schema=SCHEMAS[kind])


def commit(out: Draft, kind: str, rows: pa.Table) -> Artifact:
    digest = format_digest(rows_digest(rows))
    return out.commit(kind, {"rows-00000.parquet": table_bytes(rows, kind)}, digest, rows=rows.num_rows)


def samples(prompt_id: str) -> pa.Table:
    drawn = {"prompt_id": prompt_id, "token_ids": [1], "num_tokens": 1, "finish_reason": "stop"}
    return table("completions", *({**drawn, "completion_id": i, "completion": text} for i, text in enumerate(TEXTS)))


def scores(prompt_id: str) -> pa.Table:
    rows = ({"prompt_id": prompt_id, "completion_id": i, "reward": reward} for i, reward in enumerate(REWARDS))
    return table("rewards", *rows)


def pair(chosen: int, rejected: int) -> dict:
    names = {"prompt_id": ASKED, "chosen_id": chosen, "rejected_id": rejected}
    rewards = {"chosen_reward": REWARDS[chosen], "rejected_reward": REWARDS[rejected]}
    return {**names, **rewards, "reward_gap": REWARDS[chosen] - REWARDS[rejected], "preference_prob": 0.875}


def slices(store: Store, kind: str, *parts: pa.Table) -> list[Slice]:
    growing = GrowingTable(store, kind, Provenance(stage=kind, version=1, key=hex_of(kind)))
    return [Slice(growing.append(f"{i:02}", rows, engine="vllm")) for i, rows in enumerate(parts)]


@pytest.fixture
def made(store) -> Made:
    """What a small run leaves: two prompts, three completions each, two pairs of the one that is asked for."""
    policy, reward_model = output(store, "train_sft", "p"), output(store, "train_reward_model", "r")
    asked = {"prompt_id": ASKED, "messages": [{"role": "user", "content": "What colour?"}], "source": "f"}
    prompts = commit(draft(store, "load_prompts"), "prompts", table("prompts", asked, {**asked, "prompt_id": OTHER}))
    parts = slices(store, "completions", samples(OTHER), samples(ASKED))
    completions = commit_slices(draft(store, "sample_completions", policy=policy), "completions", parts, {})
    parts = slices(store, "rewards", scores(OTHER), scores(ASKED))
    rewards = commit_slices(draft(store, "score_completions", reward_model=reward_model), "rewards", parts, {})
    pairs = commit(draft(store, "build_pairs"), "pairs", table("pairs", pair(2, 1), pair(0, 1)))
    return Made(policy, reward_model, prompts, completions, rewards, pairs)


@pytest.fixture
def run(store, made) -> Run:
    """The record of the run that made it, finished."""
    going = RunRecord.begin(store)
    for artifact in made:
        going.note(store.folder_of(artifact))
    going.finish(made._asdict())
    return going.run


def told(capsys, *arguments: str) -> str:
    main(list(arguments))
    return capsys.readouterr().out


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


# The listing


def test_everything_is_listed(store, made, run, damage, capsys):
    checkpoint(store, made.policy, 20)
    half = output(store, "train_dpo", "half")
    damage(f"{half.uri}/manifest.json", "delete")
    broken = record(store, [])
    damage(f"{store.uri}/runs/{broken.id}/manifest.json", "truncate")

    listed = json.loads(told(capsys, store.uri, "--json"))
    assert listed["artifacts"][0]["stage"] == "train_dpo", "without a time it comes first"
    by_stage = {entry["stage"]: entry for entry in listed["artifacts"]}
    assert by_stage.keys() == {
        *("train_sft", "train_reward_model", "load_prompts", "sample_completions", "score_completions"),
        *("build_pairs", "train_dpo"),
    }
    assert by_stage["train_dpo"]["state"] == "incomplete"
    pairs = by_stage["build_pairs"]
    assert (pairs["digest"], pairs["rows"], pairs["state"]) == (made.pairs.digest, 2, "complete")
    files = store.fs.find(store.path(pairs["folder"]), detail=True)
    assert pairs["size"] == sum(info["size"] for info in files.values())
    tables = {entry["table"]: (entry["parts"], entry["rows"], entry["state"]) for entry in listed["tables"]}
    assert tables == {"completions": (2, 6, "complete"), "rewards": (2, 6, "complete")}
    assert [(c["stage"], c["step"]) for c in listed["checkpoints"]] == [("train_sft", "20")]
    assert [(r["run"], r["state"]) for r in listed["runs"]] == [
        (run.id, "finished"),
        (f"runs/{broken.id}", "damaged"),
    ]

    page = told(capsys, store.uri)
    assert made.pairs.digest[:12] in page
    assert made.pairs.digest not in page
    assert f"incomplete ({store.folder_of(half)})" in page.replace("\n", "")
    assert f"runs/{broken.id}" in page


def test_runs_are_listed_by_how_they_stand(store, capsys):
    record(store, [])
    record(store, [], status="running")
    RunRecord.begin(store)
    states = [run["state"] for run in json.loads(told(capsys, store.uri, "--json"))["runs"]]
    assert states == ["finished", "interrupted", "in use"]


def test_an_empty_folder_is_an_empty_store(tmp_path, capsys):
    assert told(capsys, str(tmp_path)) == "The store is empty.\n"
    assert list(tmp_path.iterdir()) == []


# Lineage and pairs


def test_a_lineage_is_printed(store, made, capsys):
    page = told(capsys, store.uri, "--lineage", made.completions.digest[:8])
    assert page.index("sample_completions") < page.index("policy: train_sft")
    assert made.policy.digest[:12] in page
    tree = json.loads(told(capsys, store.uri, "--lineage", hex_of("sample_completions"), "--json"))
    assert tree["inputs"]["policy"]["digest"] == made.policy.digest


def test_a_prompt_is_printed_with_its_completions_and_pairs(store, made, run, capsys):
    shown = json.loads(told(capsys, store.uri, "--pair", ASKED[:6], "--json"))
    assert (shown["run"], shown["prompt_id"]) == (run.id, ASKED)
    assert [(row["completion"], row["reward"]) for row in shown["completions"]] == list(
        zip(TEXTS, REWARDS, strict=True)
    )
    assert [(pair["chosen"], pair["rejected"], pair["reward_gap"]) for pair in shown["pairs"]] == [
        ("red", "\x1b[2Jblue", 3.5),
        ("[bold]green", "\x1b[2Jblue", 1.75),
    ]
    assert store.folder_of(made.policy) in shown["drawn_by"]
    assert "(vllm)" in shown["drawn_by"]
    assert made.reward_model.digest in shown["scored_by"]

    page = told(capsys, store.uri, "--pair", ASKED)
    assert "user: What colour?" in page
    assert "  1  -1.500  \\x1b[2Jblue  [1 tokens]" in page, "a model's text must not steer the terminal"
    assert "reward gap 3.500, preference probability 0.875\n  chosen     0   2.000  red\n" in page
    assert "[bold]green" in page


def test_a_run_that_has_no_pairs_yet_shows_what_it_has(store, made, run, capsys):
    going = RunRecord.begin(store)
    going.note(store.folder_of(made.prompts))
    going.note(store.folder_of(made.completions))
    going.note(f"score_completions/{'9' * 64}")
    shown = json.loads(told(capsys, store.uri, "--pair", ASKED, "--json"))
    assert shown["run"] == going.run.id
    assert [row["reward"] for row in shown["completions"]] == [None, None, None]
    assert (shown["pairs"], shown["scored_by"]) == ([], "")
    assert told(capsys, store.uri, "--pair", ASKED, "--run", run.id[:-3]).count("reward gap") == 2


# What is refused


def test_what_cannot_be_answered_is_refused(store, made, run, capsys):
    assert "2 prompts begin with '3f'" in refused(capsys, store.uri, "--pair", "3f")
    assert "no prompt of run" in refused(capsys, store.uri, "--pair", "abc")
    assert "no run begins with 'x'" in refused(capsys, store.uri, "--pair", "3f", "--run", "x")
    assert "--run goes with --pair" in refused(capsys, store.uri, "--run", run.id)
    assert "no artifact" in refused(capsys, store.uri, "--lineage", "fffffff")
    assert "--keep-last 0 must be at least 1" in refused(capsys, "prune", store.uri, "--keep-last", "0")
    assert "--keep-last" in refused(capsys, "prune", store.uri)


def test_a_damaged_table_is_told(store, made, run, damage, capsys):
    damage(f"{made.pairs.uri}/{read_files(made.pairs)['rows-00000.parquet'].path}", "flip")
    assert "does not match the hash" in refused(capsys, store.uri, "--pair", ASKED)


def test_a_store_that_is_not_there_is_refused_and_not_made(tmp_path):
    arguments = [sys.executable, "-m", "flows.store", "none"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: there is no store at")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# Pruning


def test_pruning_tells_what_goes(store, made, run, capsys):
    record(store, [made.prompts])
    dry = told(capsys, "prune", store.uri, "--keep-last", "1", "--dry-run")
    assert store.find(store.folder_of(made.pairs)) == made.pairs
    wet = json.loads(told(capsys, "prune", store.uri, "--keep-last", "1", "--json"))
    assert store.find(store.folder_of(made.pairs)) is None
    assert store.find(store.folder_of(made.prompts)) == made.prompts
    assert len(wet["pruned"]) == 9
    assert wet["runs"] == [run.id]
    assert all(entry["folder"] in dry for entry in wet["pruned"])
    assert "folders 9, run records 1" in dry
