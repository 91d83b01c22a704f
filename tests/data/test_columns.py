"""Columns as the field names them: prompts, demonstrations and pairs; what is ambiguous; what is not read."""

import pytest
from dialogues import assistant, prompt_of, reason, system, user

from tasks.config.sections import DataSource
from tasks.data.records import Record, parse_record
from tasks.data.tally import Tally, read_records, unread_columns

ROLES = ("prompts", "demonstrations", "preferences")


# Columns

ROWS = {
    "Alpaca": ({"instruction": "Add.", "input": "1, 2", "output": "3", "text": "..."}, [user("Add.\n\n1, 2")], "3"),
    "Alpaca without input": ({"instruction": "Hi", "input": "", "output": "3"}, [user("Hi")], "3"),
    "Dolly": ({"instruction": "Who?", "context": "A.", "response": "A", "category": "qa"}, [user("Who?\n\nA.")], "A"),
    "GSM8K": ({"question": "1 + 1?", "answer": "#### 2"}, [user("1 + 1?")], "#### 2"),
    "OpenOrca": (
        {"id": "x", "system_prompt": "Be brief.", "question": "Hi", "response": "Hello"},
        [system("Be brief."), user("Hi")],
        "Hello",
    ),
    "MetaMath": ({"query": "1 + 1?", "response": "2", "type": "x"}, [user("1 + 1?")], "2"),
    "UltraChat": ({"prompt": "Hi", "prompt_id": "x", "messages": [user("Hi"), assistant("Yo")]}, [user("Hi")], "Yo"),
    "Magpie": (
        {
            "instruction": "Hi",
            "response": "Yo",
            "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}],
        },
        [user("Hi")],
        "Yo",
    ),
    "LLaMA-Factory": (
        {"instruction": "Bye", "input": "", "output": "See you", "system": "", "history": [["Hi", "Hello"]]},
        [user("Hi"), assistant("Hello"), user("Bye")],
        "See you",
    ),
    "final answer beside": (
        {"question": "1 + 1?", "response": "It is 2.", "answer": "2"},
        [user("1 + 1?")],
        "It is 2.",
    ),
    "empty forms": (
        {"messages": None, "prompt": "", "question": "Hi", "completion": "", "answer": "Yo"},
        [user("Hi")],
        "Yo",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_demonstrations_of_the_field(name):
    values, messages, completion = ROWS[name]
    for role in ("prompts", "demonstrations"):
        record = parse_record(values, role)
        assert (record.messages, record.completion) == (messages, completion)


WHOLE = {"chosen": [user("Hi"), assistant("a")], "rejected": [user("Hi"), assistant("b")]}
LONG = [system("Be brief."), user("Hi"), assistant("Hello"), user("Bye")]
LONG_PAIR = {"chosen": [*LONG, assistant("a")], "rejected": [*LONG, assistant("b")]}
PAIRS = {
    "HH": ({"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"}, [user("Hi")]),
    "UltraFeedback": (
        {"prompt": "Hi", "prompt_id": "x", "messages": WHOLE["chosen"], "score_chosen": 9.0, **WHOLE},
        [user("Hi")],
    ),
    "last question": ({"prompt": "Bye", "question": None, **LONG_PAIR}, LONG),
    "first question": ({"prompt": " Hi\n", **LONG_PAIR}, LONG),
    "whole prompt": ({"prompt": LONG, **LONG_PAIR}, LONG),
    "prompt without the system turn": ({"prompt": LONG[1:], **LONG_PAIR}, LONG),
    "Intel Orca": (
        {"system": "Be brief.", "question": "Hi", "chosen": "a", "rejected": "b"},
        [system("Be brief."), user("Hi")],
    ),
    "no system": ({"system": "", "question": "Hi", "chosen": "a", "rejected": "b"}, [user("Hi")]),
    "same system": ({"system": "Be brief. ", "prompt": "Bye", **LONG_PAIR}, LONG),
    "system beside whole": ({"system": "Be brief.", **WHOLE}, [system("Be brief."), user("Hi")]),
    "distilabel": ({"system": None, "input": "Hi", "chosen": "a", "rejected": "b", "order": ["A"]}, [user("Hi")]),
    "Alpaca pairs": ({"instruction": "Add.", "input": "1, 2", "chosen": "a", "rejected": "b"}, [user("Add.\n\n1, 2")]),
    "ShareGPT pairs": (
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
        [user("Hi")],
    ),
    "Magpie pairs": ({"instruction": "Hi", **WHOLE}, [user("Hi")]),
}


@pytest.mark.parametrize("name", PAIRS)
def test_preferences_of_the_field(name):
    values, messages = PAIRS[name]
    assert parse_record(values, "preferences") == Record(messages, chosen="a", rejected="b")
    assert parse_record(values, "prompts").messages == messages, "prompts and pairs of a file must join"
    assert parse_record(values, "demonstrations").completion == "a"


AMBIGUOUS = {
    "prompts differ": {"prompt": "Ho", **WHOLE},
    "two system messages": {"system": "Be long.", "prompt": "Bye", **LONG_PAIR},
    "input is not part of prompt": {"prompt": "Add.", "input": "1, 2", "chosen": "a", "rejected": "b"},
    "question is not part of prompt": {"prompt": "Add.", "question": "1, 2", "chosen": "a", "rejected": "b"},
    "context is not part of question": {"question": "Who?", "context": "A.", "chosen": "a", "rejected": "b"},
    "messages is not part of prompt": {
        "prompt": "Hi",
        "messages": [user("Ho"), assistant("a")],
        "chosen": "a",
        "rejected": "b",
    },
    "history beside chosen": {"history": [["a", "b"]], **WHOLE},
    "history is not pairs of question and answer": {"prompt": "Hi", "history": "a", "chosen": "a", "rejected": "b"},
    "tools not supported": {"prompt": "Hi", "tools": '[{"name": "f"}]', "chosen": "a", "rejected": "b"},
    "images not supported": {"prompt": "Hi", "images": [b"x"], "chosen": "a", "rejected": "b"},
    "system is not text": {"prompt": "Hi", "system": 3, "chosen": "a", "rejected": "b"},
}


@pytest.mark.parametrize("expected", AMBIGUOUS)
def test_ambiguous_rows_are_refused_by_name(expected):
    for role in ROLES:
        found = reason(AMBIGUOUS[expected], role)
        assert found in (expected, "prompt is not part of messages")  # `messages` come first for the other roles


def test_redundant_columns_are_no_ambiguity():
    values = {"prompt": "Question: 1 + 1?\nThink.", "question": "1 + 1?", "tools": "[]", "images": [], "history": []}
    assert prompt_of(values) == [user("Question: 1 + 1?\nThink.")]
    assert prompt_of({"prompt": "Hi", "context": {"a": 1}, "input": 3}) == [user("Hi")]


def test_a_completion_that_another_column_contradicts():
    values = {"prompt": "Hi", "response": "yes", "output": "no"}
    assert reason(values, "demonstrations") == "output is not part of response"
    assert parse_record(values, "prompts") == Record([user("Hi")])


def test_completions_that_are_good_or_bad_are_no_demonstrations():
    for label in (True, False, 1, 0):
        values = {"prompt": "Hi", "completion": "yes", "label": label}
        assert reason(values, "demonstrations") == "label tells good completions from bad ones (KTO)"
        assert parse_record(values, "prompts") == Record([user("Hi")])
    for name, label in (("label", "bad"), ("label", "True"), ("label", 0.0), ("kto_tag", False)):
        values = {"prompt": "Hi", "completion": "yes", name: label}
        assert reason(values, "demonstrations") == f"{name} tells good completions from bad ones (KTO)"
    for label in ("chat", [1], None):
        values = {"prompt": "Hi", "completion": "yes", "label": label}
        assert parse_record(values, "demonstrations").completion == "yes"


@pytest.mark.parametrize(
    ("chosen", "rejected"), [("score_chosen", "score_rejected"), ("chosen-rating", "rejected-rating")]
)
def test_pairs_whose_scores_say_the_opposite(chosen, rejected):
    pair = {"prompt": "Hi", "chosen": "a", "rejected": "b"}
    assert reason({**pair, chosen: 1.0, rejected: 9}, "preferences") == f"{chosen} is below {rejected}"
    for scores in ((9, 1.0), (5.0, 5.0), (None, 3), ([1], [2]), (float("nan"), 1.0)):
        values = {**pair, chosen: scores[0], rejected: scores[1]}
        assert parse_record(values, "preferences").chosen == "a"
        assert unread_columns(values, "preferences") == set()


@pytest.mark.parametrize(
    "text", ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nyes", "[INST] Hi [/INST] yes"]
)
def test_completions_that_a_template_has_rendered(text):
    values = {"prompt": "Hi", "chosen": text, "rejected": f"{text}, no"}
    for role in ("preferences", "demonstrations"):
        assert reason(values, role) == "chosen is rendered by a chat template"
    assert parse_record(values, "prompts") == Record([user("Hi")])


# What is not read


def test_columns_that_are_not_read_are_told():
    values = {"prompt": "Hi", "id": 3, "score": 1.0, "note": None, "chosen": "a", "rejected": "b", "margin": 1.0}
    assert unread_columns(values, "prompts") == {"score", "rejected", "margin"}
    assert unread_columns(values, "preferences") == {"score"}
    values = {"messages": [{**user("Hi"), "name": "x", "weight": None}], "metadata": {"a": 1}}
    assert unread_columns(values, "prompts") == {"messages[].name", "metadata"}


def test_columns_that_are_not_read_are_named_once(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "score": 1}\n{"prompt": "b", "id2": 7, "score": 2}\n')
    tally = Tally("a.jsonl", 0.0)
    assert len(list(read_records(DataSource(path=str(path)), "prompts", tally))) == 2
    tally.check()
    assert capsys.readouterr().out == "a.jsonl: columns not read: id2, score\n"
