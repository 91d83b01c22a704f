"""Conversations in every spelling, and as transcripts; real data in other forms."""

import json

import pytest
from dialogues import assistant, prompt_of, reason, system, user
from hypothesis import given
from hypothesis import strategies as st

from tasks.config.sections import DataSource
from tasks.data.conversations import BadRow
from tasks.data.records import Record, parse_record, prompt_id
from tasks.data.sources import read_rows

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
