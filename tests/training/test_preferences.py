"""Pairs of the policy's own completions, labelled with a known reward."""

import pyarrow as pa
import pytest

from tasks.config.errors import ConfigurationError
from tasks.config.sections import Function
from tasks.preferences import label_pairs, labelled_rows
from tasks.rewards.functions import find_gold


def test_neighbours_are_paired_by_hand():
    assert label_pairs(["a", "b", "c", "d", "e"], [1.0, 3.0, 2.0, 2.0, 9.0]) == [("b", "a", 2.0)], "a tie, a lone one"
    assert label_pairs(["a", "b"], [0.5, 0.0]) == [("a", "b", 0.5)]


def drawn(*texts: tuple[str, int, str]) -> pa.Table:
    return pa.table(dict(zip(("prompt_id", "completion_id", "completion"), zip(*texts, strict=True), strict=True)))


@pytest.fixture
def gold(tmp_path, monkeypatch):
    (tmp_path / "number.py").write_text("def reward(messages, text):\n    return float(text)\n")
    monkeypatch.syspath_prepend(tmp_path)
    return find_gold(Function(function="number:reward"))


def test_each_prompt_is_labelled_by_itself_in_the_order_of_its_completions(gold):
    table = drawn(("q", 1, "4"), ("p", 0, "1"), ("q", 0, "7"), ("p", 1, "2"), ("p", 2, "9"))
    prompts = {"p": [{"role": "user", "content": "P"}], "q": [{"role": "user", "content": "Q"}]}
    assert list(labelled_rows(table, prompts, gold)) == [
        {"prompt_id": "p", "messages": prompts["p"], "chosen": "2", "rejected": "1", "margin": 1.0},
        {"prompt_id": "q", "messages": prompts["q"], "chosen": "7", "rejected": "4", "margin": 3.0},
    ]


def test_a_reward_that_is_no_number_labels_nothing(gold):
    with pytest.raises(ConfigurationError, match="1 of 2 completions no finite reward, first 'nan'"):
        list(labelled_rows(drawn(("p", 0, "1"), ("p", 1, "nan")), {"p": []}, gold))
