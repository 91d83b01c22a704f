"""The section of a judge: what is refused, and what is in the key."""

import pytest
from pydantic import ValidationError
from runs import ROOT

from flows.config_files import explain, read_section
from tasks.config.judges import JudgeConfig

GIVEN = {"model": "m", "base_url": "http://127.0.0.1:1/v1"}
CRITERIA = {"truth": {"description": "It is true.", "weight": 3}, "tone": {"description": "It is kind."}}
TEMPLATE = "Rate {answer} to {question} by {rubric}"


def judge(**fields) -> JudgeConfig:
    return JudgeConfig.model_validate(GIVEN | fields)


@pytest.mark.parametrize("name", ["sk-abcdefgh", "sk_abcdefgh", "hf_AbCdEf", "ghp-1", "", "A" * 65, 7])
def test_a_key_is_refused_and_not_repeated(name):
    with pytest.raises(ValidationError) as caught:
        judge(api_key_variable=name)
    assert "never a key" in explain(caught.value)
    assert not name or str(name) not in str(caught.value).replace("1/v1", "")


@pytest.mark.parametrize("name", ["api_key", "openai_api_key", "secret", "auth_token"])
def test_a_field_that_holds_a_secret_is_refused(name):
    with pytest.raises(ValidationError, match="a secret must not be here"):
        judge(**{name: "sk-abcdefgh"})
    with pytest.raises(ValidationError, match="a secret must not be here"):
        judge(base_url="https://me:sk-abcdefgh@host/v1")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_url": "ftp://host"}, "base_url"),
        ({"base_url": "https://host/v1?key=1"}, "base_url"),
        ({"base_url": "http://host:99999/v1"}, "Port out of range"),
        ({"base_url": "http://[::1/v1"}, "Invalid IPv6 URL; write one like"),
        ({"criteria": CRITERIA, "instruction": "Be good."}, "set one of judge.instruction, judge.criteria and"),
        ({"criteria": CRITERIA, "principles": ["It is true."]}, "set one of judge.instruction, judge.criteria and"),
        ({"template": TEMPLATE, "principles": ["It is true."]}, "set judge.pair_template"),
        ({"pair_template": "{question} {answer_a} {answer_b}", "principles": ["x"]}, "pair_template lacks {rubric}"),
        ({"criteria": {"a": {"description": "x", "weight": 0}}}, "greater than 0"),
        ({"criteria": {"a": {"description": "x"}, "A": {"description": "y"}}}, "differ in more than capitals"),
        ({"criteria": {"a: [[5]]": {"description": "x"}}}, "letters, digits, spaces"),
        ({"budget_cost": 1.0, "price_per_million_input": 1.0}, "needs judge.price_per_million_input and"),
        ({"template": "{answer}"}, r"judge.template lacks {conversation}, or {question}"),
        ({"template": "{question}"}, r"judge.template lacks {answer}"),
        ({"template": TEMPLATE + "{answr}"}, r"{answr}, which is no placeholder: there are answer, conversation"),
        ({"template": TEMPLATE + "{answer!r}"}, r"{answer}, which is no placeholder"),
        ({"template": TEMPLATE + "{answer:>9}"}, "is no placeholder"),
        ({"template": TEMPLATE + '{"a": 1}'}, "write '{{' and '}}' for braces"),
        ({"template": TEMPLATE + "{"}, "write '{{' and '}}' for braces"),
        ({"template": "{answer} {question}", "criteria": CRITERIA}, "judge.template lacks {rubric}"),
        ({"template": TEMPLATE, "reference": True}, "judge.template lacks {reference}"),
        ({"template": TEMPLATE + "{reference}"}, "set judge.reference to show one"),
        ({"pair_template": "{question} {answer_a}"}, "judge.pair_template lacks {answer_b}"),
        ({"template": {"file": "/nowhere/judge.txt"}}, "/nowhere/judge.txt cannot be read"),
        ({"principles": {"file": "/nowhere/principles.yaml"}}, "cannot be read"),
        ({"principles": [{"text": "a", "priority": 0}]}, "greater than or equal to 1"),
        ({"limit_parameter": "length"}, "limit_parameter"),
        ({"concurrency": True}, "must be a number"),
    ],
)
def test_what_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message.replace("{", r"\{")):
        judge(**fields)


def test_a_file_counts_by_its_content(tmp_path):
    (tmp_path / "judge.txt").write_text(TEMPLATE)
    (tmp_path / "principles.yaml").write_text("- It is kind.\n- {text: It is true., priority: 2}\n")
    found = judge(template={"file": str(tmp_path / "judge.txt")}, instruction="Be good.")
    assert found.template == TEMPLATE
    assert found == judge(template=TEMPLATE, instruction="Be good.")
    found = judge(principles={"file": str(tmp_path / "principles.yaml")})
    assert [(each.text, each.priority) for each in found.principles] == [("It is kind.", 1), ("It is true.", 2)]
    inline = judge(principles=["It is kind.", {"text": "It is true.", "priority": 2}])
    assert found == inline
    assert JudgeConfig.model_validate(found.model_dump(mode="json")) == found  # as a worker gets it


def test_the_shipped_judge():
    found = read_section(JudgeConfig, str(ROOT / "configs/judge.yaml"), [])
    assert [each.priority for each in found.principles] == [1, 2, 3, 4]
    assert found.api_key_variable is None


def test_principles_that_are_no_yaml(tmp_path):
    (tmp_path / "principles.yaml").write_text("- [")
    with pytest.raises(ValidationError, match="is no YAML"):
        judge(principles={"file": str(tmp_path / "principles.yaml")})


def test_the_key_holds_what_is_asked_and_not_how():
    how = {"base_url": "https://elsewhere/v1", "api_key_variable": None, "concurrency": 1, "timeout_seconds": 1}
    how |= {"retries": 0, "budget_tokens": 5, "max_unreadable": 1, "limit_parameter": "max_completion_tokens"}
    how |= {"budget_cost": 1, "price_per_million_input": 1, "price_per_million_output": 1}
    assert judge(**how).key_fields() == judge().key_fields() == {"model": "m"}
    for fields in ({"version": "2"}, {"criteria": CRITERIA}, {"instruction": "x"}, {"template": TEMPLATE}):
        assert judge(**fields).key_fields() != judge().key_fields()
    for fields in ({"reference": True}, {"temperature": 1}, {"max_answer_tokens": 7}, {"seed": None}):
        assert judge(**fields).key_fields() != judge().key_fields()
    assert judge(principles=["x"]).key_fields() != judge(principles=["y"]).key_fields() != judge().key_fields()
