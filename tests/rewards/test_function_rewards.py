"""Functions of the section `rewards`: what they are asked with, and what becomes of the rows that they fail on."""

import importlib
import math
import sys

import numpy as np
import pytest

from tasks.config.errors import ConfigurationError
from tasks.config.rewards import RewardSource
from tasks.rewards.called import FunctionReward
from tasks.rewards.functions import Answer, function_digest
from tasks.store.artifacts import Artifact

SOURCE = """
import sys
from tasks.config.errors import ConfigurationError

def told(messages, completion, metadata, reference_completion, factor):
    print("looking at", completion)
    return factor * (len(completion) + metadata["bonus"] + len(reference_completion))

def odd(messages, completion):
    if completion == "raise":
        raise KeyError("no such\\nthing")
    values = {"none": None, "text": "1.0", "nan": float("nan"), "infinite": -float("inf"), "list": [1.0]}
    return values.get(completion, True)

def converts(messages, completion):
    import numpy, torch
    values = {"numpy": numpy.float32(3), "tensor": torch.tensor(2.0), "bool": numpy.True_}
    failing = {"arrays": numpy.ones(2), "tensors": torch.ones(2), "large": 1e39, "whole": 10**400, "complex": 1j}
    return sys.exit("done") if completion == "exit" else (values | failing)[completion]

def refuses(messages, completion):
    raise ConfigurationError("set run_untrusted_code")
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    (tmp_path / "told_rewards.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)

    def reward(name, **options):
        source = RewardSource(function=f"told_rewards:{name}", options=options)
        stats = {"name": "own", "source": source.model_dump(mode="json")}
        return FunctionReward(Artifact(kind="function", uri="", digest=function_digest(source.called), stats=stats))

    return reward


def score(reward, answers):
    heard = []
    values = reward(answers, lambda values: heard.extend(values.tolist()))
    np.testing.assert_array_equal(heard, values)
    return values.tolist()


def test_a_function_gets_what_it_asks_for_of_the_prompt(made, capsys):
    answers = [Answer([], "abc", '{"bonus": 10}', "xy", "p/0"), Answer([], "a", '{"bonus": 0}', "", "p/1")]
    told = made("told", factor=2)
    assert [score(told, [answer]) for answer in answers] == [[30], [2]]
    assert capsys.readouterr().out.splitlines() == [
        "rewards.own prints, first 'looking at abc': that is not shown",
        "rewards.own prints, first 'looking at a': that is not shown",
    ]


def test_rows_that_a_function_fails_on_have_no_reward_and_are_named(made, capsys):
    texts = ["none", "text", "nan", "infinite", "list", "raise", "fine"]
    values = score(made("odd"), [Answer([], text, id=f"p/{text}") for text in texts])
    assert [math.isnan(value) for value in values] == [True] * 6 + [False]
    assert values[-1] == 1.0
    assert "fails on 6 of 7 completions, which get no reward, first p/none: it returned None" in capsys.readouterr().out
    values = score(made("odd"), [Answer([], "raise", id="q/3")])
    assert "q/3: it raised KeyError: 'no such\\nthing'" in capsys.readouterr().out


def test_numbers_of_any_type_are_rewards_and_nothing_else_is(made, capsys):
    texts = ["numpy", "tensor", "bool", "exit", "arrays", "tensors", "large", "whole", "complex"]
    values = score(made("converts"), [Answer([], text, id=text) for text in texts])
    assert values[:3] == [3, 2, 1]
    assert all(map(math.isnan, values[3:]))
    for text in texts[3:]:
        score(made("converts"), [Answer([], text, id=f"p/{text}")])
    said = capsys.readouterr().out
    assert "p/exit: it raised SystemExit: done" in said
    assert "p/arrays: it returned array([1., 1.]), and not one number" in said
    assert "p/tensors: it returned tensor([1., 1.]), and not one number" in said
    assert "p/large: it returned 1e+39, which is not finite in float32" in said  # it would be kept as infinite


def test_a_function_that_is_not_configured_as_it_must_be_stops(made):
    with pytest.raises(ConfigurationError, match="set run_untrusted_code"):
        score(made("refuses"), [Answer([], "")])


def test_a_function_that_is_another_one_here_is_refused(made, tmp_path):
    reward = made("odd")
    source = RewardSource(function="told_rewards:odd")
    stats = {"name": "own", "source": source.model_dump(mode="json")}
    with pytest.raises(ConfigurationError, match="is another one here"):
        FunctionReward(Artifact(kind="function", uri="", digest="0" * 64, stats=stats))
    assert reward.name == "own"


def test_a_source_that_has_changed_since_it_was_imported_is_refused(tmp_path, monkeypatch):
    """Else the old function's rewards would be kept under the new one's key."""
    path = tmp_path / "edited_rewards.py"
    path.write_text("def one(messages, completion):\n    return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    called = RewardSource(function="edited_rewards:one").called
    before = function_digest(called)
    path.write_text("def one(messages, completion):\n    return 2.0\n")
    with pytest.raises(ConfigurationError, match="has changed since this process imported it, and would compute what"):
        function_digest(called)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "edited_rewards")
    assert function_digest(called) != before
