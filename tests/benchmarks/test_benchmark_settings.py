"""Settings of benchmarks: what goes together, and the shipped configuration."""

import pytest
from pydantic import ValidationError
from runs import ROOT

from flows.config_files import read_section
from tasks.config.benchmarks import BenchmarksConfig

JUDGE = {"model": "judge", "base_url": "http://127.0.0.1:1/v1", "api_key_variable": None}
MT_BENCH = {"questions": "q.jsonl", "prompts": "p.jsonl"}
WINS = {"instructions": "i.jsonl"}
REFUSALS = {"harmful": "h.jsonl"}
P = {"a": "model"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"policies": P}, "nothing to measure: set mt_bench"),
        ({"refusals": REFUSALS}, "no policy to measure: set policies, or run: last"),
        ({"refusals": {}, "policies": P}, "set refusals.harmful, refusals.harmless or both"),
        ({"refusals": REFUSALS, "policies": P, "judge": JUDGE}, "judge goes with mt_bench and win_rate"),
        ({"mt_bench": MT_BENCH, "policies": P}, "judge goes with mt_bench and win_rate"),
        (
            {"mt_bench": MT_BENCH, "policies": P, "judge": JUDGE | {"instruction": "Be."}},
            "judge.instruction is read by",
        ),
        (
            {"win_rate": WINS, "policies": P, "judge": JUDGE | {"template": "{question}{answer}"}},
            "judge.template is read",
        ),
        ({"refusals": REFUSALS, "run": "last", "policies": {"sft": "m"}}, "policies.sft is a policy of the run too"),
        ({"refusals": REFUSALS, "policies": {"": "m"}}, "policies has one without a name"),
        ({"win_rate": WINS | {"against": "b"}, "policies": P, "judge": JUDGE}, "'b' is none of the policies: a"),
        ({"win_rate": WINS | {"against": "a"}, "policies": P, "judge": JUDGE}, "'a' is the only policy"),
        ({"mt_bench": MT_BENCH | {"answers": {"a": "f"}}, "policies": P, "judge": JUDGE}, "answers.a is a policy too"),
        ({"refusals": REFUSALS, "policies": P, "sampling": {"k": 2}}, "less than or equal to 1"),
        ({"lm_eval": {"tasks": []}, "policies": P}, "at least 1 item"),
        ({"lm_eval": {"tasks": ["a,b"]}, "policies": P}, "should match pattern"),
    ],
)
def test_what_does_not_go_together_is_refused(given, message):
    with pytest.raises(ValidationError, match=message.replace(".", r"\.")):
        BenchmarksConfig.model_validate(given)


def test_stored_answers_alone_need_no_policy():
    given = {"mt_bench": MT_BENCH | {"answers": {"llama": "f"}}, "judge": JUDGE}
    assert BenchmarksConfig.model_validate(given).names() == []


def test_the_shipped_configuration(monkeypatch):
    monkeypatch.setenv("MT_BENCH", "/somewhere")
    config = read_section(BenchmarksConfig, str(ROOT / "configs/benchmarks.yaml"), [])
    assert config.names() == ["sft", "aligned"]
    assert config.sampling.max_new_tokens == 1024
