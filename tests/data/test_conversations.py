"""Rows as the data sets of the field have them: spellings of conversations, columns, and what is refused by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.config.sections import DataSource
from tasks.data.conversations import BadRow
from tasks.data.records import Record, parse_record, prompt_id
from tasks.data.sources import read_rows
from tasks.data.tally import Tally, read_records, unread_columns

ROLES = ("prompts", "demonstrations", "preferences")


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def system(content):
    return {"role": "system", "content": content}


def reason(values, role):
    with pytest.raises(BadRow) as caught:
        parse_record(values, role)
    return caught.value.reason


def prompt_of(values, role="prompts"):
    return parse_record(values, role).messages


# One conversation, in every spelling

TURNS = [system("Be brief."), user("Hi"), assistant("Hello"), user("Bye")]
SHARE_GPT = [
    {"from": who, "value": one["content"]} for who, one in zip(("system", "human", "gpt", "human"), TURNS, strict=True)
]
SPELLINGS = {
    "plain": TURNS,
    "other keys": [{**one, "name": "x", "tool_calls": None, "function_call": {}} for one in TURNS],
    "parts": [{**one, "content": [{"type": "text", "text": one["content"]}]} for one in TURNS],
    "two parts": [*TURNS[:3], user([{"type": "text", "text": "B"}, {"type": "text", "text": "ye", "image": None}])],
    "ShareGPT": SHARE_GPT,
    "nulls of both": [{"from": None, "value": None, **one} for one in TURNS],
    "capitals": [{**one, "role": one["role"].title()} for one in TURNS],
    "models": [
        {**one, "role": {"assistant": "bard", "user": "prompter", "system": "developer"}[one["role"]]} for one in TURNS
    ],
    "empty system": [system(" "), *TURNS],
    "nested": [TURNS],
    "JSON": json.dumps(TURNS),
    "JSON of ShareGPT": json.dumps(SHARE_GPT, indent=1),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_the_same_conversation(spelling):
    value = SPELLINGS[spelling]
    for column in ("messages", "conversations", "conversation", "prompt", "question"):
        assert prompt_of({column: value}) == TURNS
    whole = [*value, assistant("See you")] if isinstance(value, list) and len(value) == 4 else None
    if whole:
        assert parse_record({"messages": whole}, "demonstrations") == Record(TURNS, "See you")
        pair = {"chosen": whole, "rejected": [*value, assistant("No")]}
        assert parse_record(pair, "preferences") == Record(TURNS, chosen="See you", rejected="No")
        pair = {column: json.dumps(turns) for column, turns in pair.items()}
        assert parse_record(pair, "preferences") == Record(TURNS, chosen="See you", rejected="No")


BAD_MESSAGES = {
    "unknown role": [{"role": "tool", "content": "a"}],
    "bad message": [{"text": "a", "role": "user"}],
    "tool calls are not supported": [{**assistant("a"), "tool_calls": [{"id": 1}]}, user("b")],
    "message content is not text": [user([{"type": "image_url", "image_url": "x"}, {"type": "text", "text": "What?"}])],
    "messages are Python text, not JSON": str([user("Hi")]),
}


@pytest.mark.parametrize("expected", BAD_MESSAGES)
def test_messages_that_are_refused(expected):
    for column in ("messages", "conversations", "prompt"):
        assert reason({column: BAD_MESSAGES[expected]}, "prompts") == expected


@pytest.mark.parametrize(
    "reply",
    [
        "yes",
        [assistant("yes")],
        assistant("yes"),
        {"content": "yes"},
        {"from": "gpt", "value": "yes"},
        [[assistant("yes")]],
        json.dumps([assistant("yes")]),
        json.dumps(assistant("yes")),
        [user("Hi"), assistant("yes")],
        "\n\nAssistant: yes",
        "\n\nHuman: Hi\n\nAssistant: yes",
        "Human: Hi\n\nAssistant: yes",
    ],
)
def test_every_spelling_of_a_completion(reply):
    for column in ("completion", "response", "output", "answer", "chosen"):
        assert parse_record({"prompt": "Hi", column: reply}, "demonstrations") == Record([user("Hi")], "yes")
    pair = {"prompt": "Hi", "chosen": reply, "rejected": "no"}
    assert parse_record(pair, "preferences") == Record([user("Hi")], chosen="yes", rejected="no")


def test_a_dialogue_that_was_asked_for_is_a_text():
    for text in ("User: a\nAssistant: b", "Human: a\n\nAssistant: b\n\nHuman: c", "Human: a", "[1, 2]", '{"role": 1}'):
        assert parse_record({"prompt": "Write a dialogue", "completion": text}, "demonstrations").completion == text


# Transcripts in a prompt


TRANSCRIPTS = [
    "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:",
    "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: ",
    "Human: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:",
    "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye",
    "Human: Hi\nAssistant: Hello\nHuman: Bye\nAssistant:",
    "User: Hi\n\nAssistant: Hello\n\nUser: Bye\n\nAssistant:",
]


@pytest.mark.parametrize("text", TRANSCRIPTS)
def test_a_transcript_in_the_prompt_is_its_turns(text):
    messages = [user("Hi"), assistant("Hello"), user("Bye")]
    assert prompt_of({"prompt": text}) == messages
    values = {"prompt": text, "response": " See you", "chosen": " See you", "rejected": " No"}
    space = "" if text.rstrip().endswith("Assistant:") else " "  # the space after the marker is no part of the text
    expected = Record(messages, chosen=f"{space}See you", rejected=f"{space}No")
    assert parse_record(values, "preferences") == expected
    assert parse_record(values, "demonstrations") == Record(messages, f"{space}See you")
    whole = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:"
    values = {"prompt": text, "chosen": f"{whole} See you", "rejected": f"{whole} No"}
    assert parse_record(values, "preferences") == Record(messages, chosen="See you", rejected="No")


def test_a_transcript_of_one_turn():
    for text in ("\n\nHuman: Hi\n\nAssistant:", "\n\nHuman: Hi", "Human: Hi\n\nAssistant:"):
        assert prompt_of({"prompt": text}) == [user("Hi")]


def test_texts_whose_turns_cannot_be_told():
    assert reason({"prompt": "Human: Hi"}, "prompts") == "prompt opens with Human: and has no Assistant:"
    late = "Be kind.\n\nHuman: Hi\n\nAssistant:"
    assert reason({"prompt": late}, "prompts") == "text before the first turn"
    assert reason({"prompt": "\n\nHuman: Hi\n\nAssistant: Well,"}, "prompts") == "no user turn"
    for text in (
        "<|im_start|>user\nHi<|im_end|>\n",
        "<s>[INST] Hi [/INST]",
        "<|user|>\nHi",
        "<bos><start_of_turn>user\n",
        "### Human: Hi### Assistant:",
        "USER: Hi ASSISTANT:",
        "Below is an instruction.\n\n### Instruction:\nHi\n\n### Response:",
    ):
        assert reason({"prompt": text}, "prompts") == "prompt is rendered by a chat template"
        assert prompt_of({"prompt": [user(text)]}) == [user(text)], "as a message it goes to the model as it is"
    for text in ("Say Human: or\n\nHuman: twice", "Continue.\n\nHuman: a\n\nAssistant: b\n\nWhat now?", "Humans: a"):
        assert prompt_of({"prompt": text}) == [user(text)]


@given(st.lists(st.text("abc \n", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=5))
def test_a_transcript_says_what_its_turns_say(texts):
    turns = [(user, assistant)[number % 2](text) for number, text in enumerate(texts)]
    text = "".join(f"\n\n{'Human' if turn['role'] == 'user' else 'Assistant'}: {turn['content']}" for turn in turns)
    if turns[-1]["role"] == "user":
        assert prompt_of({"prompt": f"{text}\n\nAssistant:"}) == prompt_of({"messages": turns}) == turns
    else:
        assert parse_record({"chosen": text}, "demonstrations") == parse_record({"messages": turns}, "demonstrations")


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


# Real data


def test_real_data_in_other_forms(test_data):
    found = [values for _, values in read_rows(DataSource(path=str(test_data / "gsm8k/test.jsonl")))]
    records = [parse_record(values, "demonstrations") for values in found]
    assert len(records) == 1319
    assert all("####" in record.completion and len(record.messages) == 1 for record in records)
    for name, number in (("Natural", 100), ("Manual", 46)):
        found = [values for _, values in read_rows(DataSource(path=str(test_data / f"llmbar/{name}.json")))]
        assert len({prompt_id(parse_record(values, "prompts").messages) for values in found}) > 0.9 * number


def test_hh_pairs_are_the_same_in_every_form(test_data):
    """Write real HH pairs as other projects share them: all give the records of the original."""
    path = str(test_data / "hh-rlhf/helpful-base_test.jsonl.gz")
    compared = 0
    for _, values in list(read_rows(DataSource(path=path)))[:300]:
        try:
            record = parse_record(values, "preferences")
        except BadRow:
            continue
        chosen, rejected = assistant(record.chosen), assistant(record.rejected)
        share_gpt = [
            {"from": {"user": "human"}.get(one["role"], "gpt"), "value": one["content"]} for one in record.messages
        ]
        rows = [
            {"chosen": [*record.messages, chosen], "rejected": [*record.messages, rejected]},
            {"prompt": record.messages, "chosen": [chosen], "rejected": [rejected]},
            {"conversations": share_gpt, "chosen": chosen, "rejected": rejected},
            {
                "prompt": record.messages[-1]["content"],
                "chosen": [*record.messages, chosen],
                "rejected": json.dumps([*record.messages, rejected]),
            },
        ]
        cut = values["chosen"].rindex("\n\nAssistant:") + len("\n\nAssistant:")
        if values["chosen"][:cut] == values["rejected"][:cut]:  # Dahoas/full-hh-rlhf
            rows.append(
                {
                    "prompt": values["chosen"][:cut],
                    "chosen": values["chosen"][cut:],
                    "rejected": values["rejected"][cut:],
                }
            )
        assert all(parse_record(row, "preferences") == record for row in rows)
        compared += len(rows)
    assert compared > 1200
