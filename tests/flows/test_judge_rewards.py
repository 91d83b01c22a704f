"""Rewards judged: functions in this process, and with a small reward model in processes of their own, on real sets."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from judge_server import MODEL, asked_text, judging
from runs import ROOT, written

from flows.judge_rewards import judge_rewards, main
from tasks.quality.settings import JudgeRewardsConfig
from tasks.store.manifests import read_files

SOURCE = """
def words(messages, completion):
    return float(len(completion.split()))

def overlap(messages, completion):
    asked, said = set(messages[-1]["content"].lower().split()), completion.lower().split()
    return sum(word in asked for word in said) / max(1, len(said))

def picky(messages, completion):
    raise ValueError("not today")
"""


FUNCTIONS = {"words": {"function": "judged_functions:words"}, "overlap": {"function": "judged_functions:overlap"}}


def settings(folder: Path, data: Path) -> dict[str, Any]:
    """Return what two functions are judged on; write rows in RewardBench's form."""
    (folder / "judged_functions.py").write_text(SOURCE)
    rows = [("math-prm", "a b c", "a"), ("math-prm", "a b", "a"), ("hep-go", "a", "a b"), ("mine", "a", "b")]
    lines = [
        json.dumps({"prompt": f"Question {n}?", "subset": subset, "chosen": chosen, "rejected": rejected})
        for n, (subset, chosen, rejected) in enumerate(rows)
    ]
    (folder / "bench.jsonl").write_text("\n".join(lines))
    tulu = {"source": str(data / "best_of_n/tulu2_13b_200x11.parquet"), "gold_column": "reward"}
    return {
        "rewards": FUNCTIONS,
        "pairs": {
            "natural": {"source": str(data / "llmbar/Natural.json"), "format": "llmbar"},
            "bench": {"source": str(folder / "bench.jsonl"), "format": "rewardbench"},
        },
        "samples": {"tulu": {**tulu, "max_rows": 220}},
        "bias": {"set": "natural", "prompts": 20},
        "store": str(folder / "store"),
    }


# In this process.


@pytest.fixture(scope="module")
def found(tmp_path_factory, test_data, prefect_harness) -> dict:
    folder = tmp_path_factory.mktemp("functions")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        made, found = judge_rewards(JudgeRewardsConfig.model_validate(settings(folder, test_data)))
    page = Path(f"{made.uri.removeprefix('file://')}/{read_files(made)['reward_quality.html'].path}").read_text()
    return json.loads(json.dumps(found.as_json())) | {"shown": page}


def test_every_reward_is_judged_on_every_set(found):
    assert [(row["set"], row["prompts"]) for row in found["sets"]] == [("natural", 100), ("bench", 4), ("tulu", 20)]
    whole = {(row["set"], row["reward"]): row for row in found["accuracy"] if row["category"] == "all"}
    assert len(whole) == 4
    natural = whole["natural", "words"]
    assert (natural["accuracy"], natural["ties"], natural["unscored"]) == (0.55, 6, 0)
    assert [(row["set"], row["reward"]) for row in found["calibration"]] == list(whole)


def test_sections_weigh_subsets_as_the_benchmark_does(found):
    rows = {(row["category"], row["reward"]): row["accuracy"] for row in found["accuracy"] if row["set"] == "bench"}
    assert [rows[name, "words"] for name in ("math-prm", "hep-go", "mine", "all")] == [1.0, 0.0, 0.5, 0.625]
    (section,) = (row for row in found["sections"] if row["reward"] == "words")
    assert (section["section"], section["subsets"], section["of"]) == ("Reasoning", 2, 7)
    assert section["score"] == pytest.approx(984 / (984 + 164))


def test_agreement_best_of_n_and_bias(found):
    assert [(row["reward"], row["other"]) for row in found["agreement"]] == [
        ("gold", "words"),
        ("gold", "overlap"),
        ("words", "overlap"),
        ("gold", "gold, shuffled"),
    ]
    curves = {row["reward"]: row for row in found["best_of"]}
    assert list(curves) == ["random", "gold", "words", "overlap"]
    assert all(row["n"] == list(range(1, 12)) for row in curves.values())
    assert all(row["gold"][-1] <= curves["gold"]["gold"][-1] for row in curves.values())
    bias = {(row["reward"], row["edit"]): row for row in found["bias"]}
    assert bias["words", "heading"]["change"] > 0 == bias["words", "capital letters"]["change"]


def test_the_page_shows_what_was_found(found):
    for text in ("How often is each reward right?", "What is best of n worth on tulu?", "0.550 [0.452, 0.644], 6 ties"):
        assert text in found["shown"]
    assert found["shown"].count("<svg") == 4 + 1 + 2, "calibration of each, one of best of n, bias of each"


def test_a_held_out_reward_measures_best_of_n(tmp_path, test_data, prefect_harness, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    given = settings(tmp_path, test_data) | {"pairs": {}, "bias": {"prompts": 0}}
    given["samples"]["tulu"] |= {"gold_column": None, "held_out": "overlap", "max_rows": 33}
    _, found = judge_rewards(JudgeRewardsConfig.model_validate(given))
    assert [each.reward for each in found.best_of] == ["random", "words", "overlap"]
    assert found.best_of[2].gain[-1] == max(each.gain[-1] for each in found.best_of) > 0
    assert (found.accuracy, found.bias) == ([], [])


def test_a_judge_is_judged_as_others_are_and_asked_once(tmp_path, test_data, prefect_harness):
    def says(request: dict, number: int) -> str:
        answer = asked_text(request).partition("[Start of the answer]\n")[2].partition("\n[End of")[0]
        return f"[[{len(answer.split())}]]"

    given = settings(tmp_path, test_data) | {"samples": {}, "bias": {"prompts": 0}}
    del given["pairs"]["natural"]
    with judging(says) as server:
        judge = {"model": MODEL, "base_url": server.url, "api_key_variable": None}
        config = JudgeRewardsConfig.model_validate(given | {"rewards": {"long": {"judge": judge}}})
        _, found = judge_rewards(config)
        asked = len(server.requests)
        _, again = judge_rewards(config)
        assert (asked, len(server.requests)) == (8, 8)
    accuracy = {each.category: each.accuracy for each in found.accuracy}
    assert accuracy == {"all": 0.625, "hep-go": 0.0, "math-prm": 1.0, "mine": 0.5}
    assert again == found


# In processes of their own.


def judge(config: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "flows.judge_rewards", str(config), *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{config.parent}:{ROOT}"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, test_data) -> Path:
    """Return a folder with a configuration, its functions and a small reward model."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder, base = tmp_path_factory.mktemp("judged"), test_data / "stories260k"
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(base, num_labels=1).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "model")
    config = settings(folder, test_data)
    config["rewards"] = FUNCTIONS | {"small": {"reward_model": {"ready_model": str(folder / "model")}}}
    source = str(test_data / "hh-rlhf/harmless-base_test.jsonl.gz")
    config["pairs"]["harmless"] = {"source": source, "max_rows": 100}
    (folder / "judge.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bias.set=none", "bias.set = 'none' is none of the sets: natural, bench, tulu"),
        ("rewards.words.function=judged_functions:wrds", "no function 'wrds'; the module has words, overlap, picky"),
        ("pairs.bench.source=nothing.jsonl", "set bench: there is no file or folder nothing.jsonl"),
        ("pairs.natural.format=rewardbench", "Natural.json row 1 has no column chosen, prompt, rejected, subset"),
    ],
)
def test_what_is_typed_wrong_in_judged_rewards_is_refused(tmp_path, test_data, capsys, monkeypatch, override, message):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump(settings(tmp_path, test_data), sort_keys=False))
    assert message in refused(capsys, str(tmp_path / "judge.yaml"), "--set", override)
    assert not (tmp_path / "store").exists()


@pytest.fixture(scope="module")
def first(folder) -> subprocess.CompletedProcess:
    done = judge(folder / "judge.yaml", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_a_reward_model_is_judged_beside_functions(first):
    found = json.loads(first.stdout.strip().splitlines()[-1])
    whole = {(row["set"], row["reward"]): row for row in found["accuracy"] if row["category"] == "all"}
    small = whole["harmless", "small"]
    assert small["pairs"] + small["unscored"] == 100
    assert small["unscored"] > 0, "the story model reads 512 tokens"
    assert [row["reward"] for row in found["best_of"]] == ["random", "gold", "words", "overlap", "small"]
    bias = {(row["reward"], row["edit"]): row["change"] for row in found["bias"]}
    assert bias["small", "capital letters"] != 0 == bias["words", "capital letters"]
    assert "Bias: change of the reward in its deviations" in first.stdout
    assert "Sections of RewardBench" in first.stdout


@pytest.mark.slow
def test_a_second_time_nothing_is_scored(folder, first):
    before = written(folder / "store")
    again = judge(folder / "judge.yaml", "--json")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "nothing new: the store has every stage" in again.stderr
    assert written(folder / "store") == before
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_function_that_fails_everywhere_stops_it_and_what_was_scored_is_kept(folder, first):
    done = judge(folder / "judge.yaml", "--set", "rewards.fails.function=judged_functions:picky")
    assert done.returncode == 2
    assert "rewards.fails gives " in done.stderr
    assert "it raised ValueError: not today" in done.stderr
