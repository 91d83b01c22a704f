"""python -m flows.judge_policies: the story model and a judge that counts words, by three benchmarks."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from judge_server import MODEL, JudgeServer, asked_text, judging
from kept_store import kept_run, kept_store
from runs import ROOT

from flows.judge_policies import main
from tasks.benchmarks.outcomes import read_outcomes
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store
from tasks.store.manifests import read_manifest

QUESTIONS = [("writing", "Once upon a time", "And then"), ("math", "One day", "So")]
PROMPTS = ["The cat", "A big dog", "Lily saw", "The sun", "Tom had", "The bird"]


def verdict(request, number):
    """Rate 7 the first turn and 4 the second; prefer the longer answer."""
    text = asked_text(request)
    if "[Start of answer A]" in text:
        a, b = (text.partition(f"[Start of answer {side}]\n")[2].partition("\n[End of answer")[0] for side in "AB")
        return "[[C]]" if len(a) == len(b) else f"[[{'A' if len(a) > len(b) else 'B'}]]"
    of_second = re.search(r"second (user )?question", request["messages"][0]["content"])
    return f"Rating: [[{4 if of_second else 7}]]"


def lines(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def configured(folder: Path, server: JudgeServer, data: Path) -> dict:
    """Return a configuration of three benchmarks; write their files."""
    questions = [{"question_id": n, "category": c, "turns": list(turns)} for n, (c, *turns) in enumerate(QUESTIONS)]
    references = [{"question_id": 1, "choices": [{"turns": ["one", "two"]}]}]
    return {
        "store": str(folder / "store"),
        "policies": {"story": str(data / "stories260k"), "other": str(data / "stories260k")},
        "judge": server.config().model_dump(mode="json", exclude_unset=True),
        "sampling": {"max_new_tokens": 12, "engine": "transformers"},
        "mt_bench": {
            "questions": lines(folder / "questions.jsonl", questions),
            "prompts": str(data / "mt_bench/judge_prompts.jsonl"),
            "references": lines(folder / "references.jsonl", references),
        },
        "win_rate": {
            "instructions": lines(folder / "asked.jsonl", [{"instruction": p, "output": "No."} for p in PROMPTS])
        },
        "refusals": {"harmless": lines(folder / "kind.jsonl", [{"prompt": prompt} for prompt in PROMPTS])},
        "bootstrap_samples": 100,
    }


def measured(folder: Path, config: dict, capsys, *arguments: str) -> dict:
    (folder / "benchmarks.yaml").write_text(yaml.safe_dump(config))
    main([str(folder / "benchmarks.yaml"), "--json", *arguments])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def refused(folder: Path, config: dict, capsys) -> str:
    (folder / "benchmarks.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as caught:
        main([str(folder / "benchmarks.yaml")])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_policies_are_measured_and_a_second_run_asks_nothing(prefect_harness, tmp_path, test_data, capsys):
    with judging(verdict) as server:
        config = configured(tmp_path, server, test_data)
        assert measured(tmp_path, config, capsys, "--dry-run") == {"verdicts": {"mt_bench": 8, "win_rate": 24}}
        assert not (tmp_path / "store").exists()
        assert server.requests == []
        found = measured(tmp_path, config, capsys)
        asked = len(server.requests)
        assert asked <= 16  # two policies of equal weights say the same, which is asked once
        assert measured(tmp_path, config, capsys)["figures"] == found["figures"]
        assert len(server.requests) == asked
    figures = {(each["policy"], each["figure"]): each for each in found["figures"]}
    assert [figures["story", name]["value"] for name in ("both turns", "turn 1", "turn 2", "math")] == [5.5, 7, 4, 5.5]
    assert figures["story", "win rate (%)"]["value"] == 100  # twelve tokens of a story are longer than "No."
    assert figures["story", "characters more than the reference"]["value"] > 0
    check_what_is_kept(Store(config["store"]), found)


def check_what_is_kept(store: Store, found: dict) -> None:
    manifest = read_manifest(found["benchmarks"])
    kept = Artifact(kind=manifest.kind, uri=found["benchmarks"], digest=manifest.digest, stats=manifest.stats)
    outcomes = read_outcomes(kept)
    assert sum(len(each.figures) for each in outcomes.values()) == len(found["figures"])
    said = [each.completion for each in outcomes["refusals"].answers if each.measure == "refusals harmless"]
    (refused, _) = (each["value"] for each in found["figures"] if each["benchmark"] == "refusals")
    assert refused == pytest.approx(100 * np.mean(["I'm sorry" in text for text in said]))  # the model says so in play
    assert {each.measure for each in outcomes["mt_bench"].answers} == {"mt_bench turn 1", "mt_bench turn 2"}
    assert "story: fewer than 100 comparisons, so no length-controlled win rate" in outcomes["win_rate"].notes
    assert manifest.keeps
    assert all(store.has_manifest(folder) for folder in manifest.keeps)
    assert manifest.provenance.config["settings"]["judge"]["model"] == MODEL
    assert set(manifest.provenance.inputs) == {"policies.story", "policies.other", "material"}
    page = Path(found["page"].removeprefix("file://")).read_text()
    for words in (
        f"Judge: {MODEL}.",
        "How are the answers to MT-Bench rated?",
        "length-controlled",
        "What is refused?",
        "Once upon a time",
    ):
        assert words in page


def test_the_policies_of_a_run_and_one_as_the_reference(prefect_harness, tmp_path, test_data, capsys):
    kept_run(kept_store(tmp_path / "store"))
    with judging(verdict) as server:
        config = configured(tmp_path, server, test_data)
        config = {name: config[name] for name in ("store", "judge", "sampling", "win_rate", "bootstrap_samples")}
        config |= {"run": "last", "win_rate": config["win_rate"] | {"against": "sft"}}
        for _ in range(2):  # the record of the first one is none of a run
            found = measured(tmp_path, config, capsys)
    (rate,) = (each for each in found["figures"] if each["figure"] == "win rate (%)")
    assert rate["policy"] == "aligned"
    assert rate["rows"] == len(PROMPTS)


def test_the_shipped_configuration_is_planned(tmp_path, test_data, capsys, monkeypatch):
    kept_run(kept_store(tmp_path / "store"))
    monkeypatch.setenv("MT_BENCH", str(test_data / "mt_bench"))
    main([str(ROOT / "configs/benchmarks.yaml"), "--set", f"store={tmp_path}/store", "--dry-run"])
    assert (
        capsys.readouterr().out == "mt_bench: at most 320 verdicts of the judge\n"
    )  # 2 policies, 80 questions, 2 turns


def test_what_cannot_be_measured_is_refused_before_anything_is_asked(prefect_harness, tmp_path, test_data, capsys):
    with judging(verdict) as server:
        config = configured(tmp_path, server, test_data)
        too_long = config | {"sampling": {"max_new_tokens": 300, "engine": "transformers"}}
        message = refused(tmp_path, too_long, capsys)
        assert "and the answers to 600 at most: more than the 512 of the model's context; lower" in message
        assert "model folder ./gone does not exist" in refused(tmp_path, config | {"policies": {"a": "./gone"}}, capsys)
        assert "has no finished run" in refused(tmp_path, config | {"run": "last", "store": f"{tmp_path}/no"}, capsys)
        keyless = config | {"judge": config["judge"] | {"api_key_variable": "NO_SUCH_KEY"}}
        assert "needs the environment variable NO_SUCH_KEY" in refused(tmp_path, keyless, capsys)
        lines(tmp_path / "asked.jsonl", [{"instruction": "Say no."}])
        assert "cannot serve as demonstrations" in refused(tmp_path, config, capsys)
        assert server.requests == []
