"""Options are refused before anything runs; and examples in the docstrings are options that fit."""

import importlib
import inspect
import re
import sys
from typing import Annotated

import pytest
import yaml
from pydantic import Field
from runs import ROOT

from tasks.config.errors import ConfigurationError
from tasks.rewards.options import check_options, is_text
from tasks.rewards.programs import answers, form, scripts, unit_tests
from tasks.selection.strategies import PairsConfig

FUNCTIONS = [
    *(answers.exact_answer, answers.numeric_answer, answers.gsm8k_answer),
    *(form.matches, form.length, form.valid_json, form.distinct_ngrams),
    *(scripts.letters_of, unit_tests.unit_tests),
]


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (form.matches, {"pattern": "a(b"}, r"option pattern = 'a\(b': no regular expression: .* at position"),
        (form.matches, {"pattern": 3}, "option pattern = 3: Input should be a valid string"),
        (form.matches, {"pattern": "a", "wanted": "no"}, "option wanted = 'no': Input should be a valid boolean"),
        (form.length, {"bounds": [5, 3]}, r"bounds = \[5, 3\]: the least must be at most the most"),
        (form.length, {"bounds": [None, None]}, "bounds nothing: give a least or a most"),
        (form.length, {"bounds": [1]}, "at least 2 items"),
        (form.length, {"bounds": [-1, 3]}, "greater than or equal to 0"),
        (form.length, {"bounds": [1, 3], "unit": "tokens"}, "'words', 'characters' or 'lines'"),
        (form.length, {"bounds": [1, 3], "slack": -1}, "option slack = -1: .* greater than or equal to 0"),
        (form.distinct_ngrams, {"n": 0}, "option n = 0: .* greater than or equal to 1"),
        (answers.numeric_answer, {"tolerance": 1.0}, "option tolerance = 1.0: .* less than 1"),
        (answers.numeric_answer, {"tolerance": float("nan")}, "option tolerance = nan"),
        (scripts.letters_of, {"scripts": ["english"]}, "no letter's Unicode name begins so: write one of latin"),
        (scripts.letters_of, {"scripts": []}, "at least 1 item"),
        (unit_tests.unit_tests, {}, "run_untrusted_code = False: this reward would run, on this machine, code that a"),
        (unit_tests.unit_tests, {"run_untrusted_code": True, "seconds": 0}, "option seconds = 0: .* greater than 0"),
        (unit_tests.unit_tests, {"run_untrusted_code": True, "score": "most"}, "'share' or 'all'"),
    ],
)
def test_bad_options_are_refused(function, options, message):
    with pytest.raises(ConfigurationError, match=message):
        check_options(function, options)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_the_example_of_each_function_fits(function):
    (text,) = re.findall(r"```yaml\n(.*?)```", inspect.getdoc(function), re.S)
    example = yaml.safe_load(text)
    module, name = example["function"].split(":")
    assert getattr(importlib.import_module(module), name) is function
    check_options(function, example["options"])
    inspect.signature(function).bind([], "", **example["options"], **needed(function))


def needed(function) -> dict[str, None]:
    return dict.fromkeys({"metadata", "reference_completion"} & set(inspect.signature(function).parameters))


def test_functions_of_a_person():
    def own(messages, completion, weight: Annotated[float, Field(ge=0)] = 1.0, plain=None, **rest):
        return weight

    check_options(own, {"weight": 2, "plain": object(), "anything": 3})
    with pytest.raises(ConfigurationError, match="option weight = -1"):
        check_options(own, {"weight": -1})

    def elsewhere(messages, completion, table: "NotHere"):  # noqa: F821
        return 0.0

    check_options(elsewhere, {"table": 3})


def test_a_pattern_names_no_file():
    assert is_text(form.matches, "pattern")
    assert is_text(answers.exact_answer, "pattern")
    assert not is_text(form.matches, "wanted")
    assert not is_text(form.matches, "nothing")


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [("math_answer", "math_verify", "math"), ("language", "py3langid", "language")],
)
def test_a_missing_package_names_its_extra(module, package, extra, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"tasks.rewards.programs.{module}", raising=False)
    monkeypatch.setattr(sys, "path", [])  # a package that is nowhere
    with pytest.raises(ConfigurationError, match=rf"is not installed: pip install 'rs-dpo\[{extra}\]'"):
        importlib.import_module(f"tasks.rewards.programs.{module}")


def test_the_page_names_functions_and_options_that_fit():
    page = (ROOT / "docs/programs.md").read_text()
    sections = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.S)]
    sources = [source for section in sections for source in section.get("rewards", {}).values()]
    assert len(sources) == 3
    for source in sources:
        module, name = source["function"].split(":")
        check_options(getattr(importlib.import_module(module), name), source.get("options", {}))
    (pairs,) = [section["pairs"] for section in sections if "pairs" in section]
    PairsConfig(**pairs)
    listed = re.findall(r"^\| `(\w+):(\w+)` \|", page, re.M)
    assert {name for _, name in listed} >= {function.__name__ for function in FUNCTIONS}
    for module, name in listed:
        assert f"\ndef {name}(" in (ROOT / f"tasks/rewards/programs/{module}.py").read_text()
