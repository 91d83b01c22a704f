"""Columns and rows: every form that is recognised, every reason to drop a row. Real data: see test_sources."""

import hashlib

import pytest
from dialogues import assistant, reason, user
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.conversations import BadRow
from tasks.data.records import Record, parse_record, prompt_id, recognise

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CONVERSATIONS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXTS}),
    min_size=1,
    max_size=4,
)
HH = "\n\nHuman: Hi\n\nAssistant:"


def test_prompt_text_is_one_user_message():
    assert parse_record({"prompt": "Hi "}, "prompts") == Record([user("Hi ")])


def test_prompt_messages_are_kept_without_extra_keys():
    system = {"role": "system", "content": "Be kind."}
    values = {"prompt": [{**system, "name": None}, user("Hi")]}
    assert parse_record(values, "prompts").messages == [system, user("Hi")]


def test_last_assistant_message_is_the_completion():
    values = {"messages": [user("a"), assistant("b"), user("c"), assistant("d")]}
    for role in ("prompts", "demonstrations"):
        assert parse_record(values, role) == Record([user("a"), assistant("b"), user("c")], "d")


def test_messages_without_a_completion_serve_as_a_prompt_only():
    values = {"messages": [user("a")]}
    assert parse_record(values, "prompts") == Record([user("a")])
    assert reason(values, "demonstrations") == "missing completion"


@pytest.mark.parametrize("completion", ["yes", [assistant("yes")], [user("Hi"), assistant("yes")]])
def test_completion_is_text_or_a_message(completion):
    assert parse_record({"prompt": "Hi", "completion": completion}, "demonstrations") == Record([user("Hi")], "yes")
    assert parse_record({"prompt": "Hi", "chosen": completion}, "demonstrations") == Record([user("Hi")], "yes")
    values = {"prompt": "Hi", "chosen": completion, "rejected": [assistant("no")]}
    assert parse_record(values, "preferences") == Record([user("Hi")], chosen="yes", rejected="no")


def test_hh_transcripts_share_all_but_their_last_turn():
    prompt = "\n\nHuman: Hi\n\nAssistant:  Hello.\n\nHuman: Bye"
    values = {"chosen": f"{prompt}\n\nAssistant:  Good bye", "rejected": f"{prompt}\n\nAssistant: Go"}
    messages = [user("Hi"), assistant(" Hello."), user("Bye")]  # one leading space goes, a second one stays
    assert parse_record(values, "preferences") == Record(messages, chosen=" Good bye", rejected="Go")
    assert parse_record(values, "demonstrations") == Record(messages, " Good bye")


def test_hh_turns_of_one_speaker_are_merged():
    prompt = "\n\nHuman: a\n\nHuman: b\n\nAssistant: c\n\nAssistant: d\n\nHuman: e\n\nAssistant: f"
    values = {"chosen": f"{prompt}\n\nAssistant: g", "rejected": f"{prompt}\n\nAssistant: h"}
    messages = [user("a\n\nb"), assistant("c\n\nd"), user("e")]
    assert parse_record(values, "preferences") == Record(messages, chosen="f\n\ng", rejected="f\n\nh")


def test_hh_markers_within_a_line_are_text():
    values = {"chosen": "\n\nHuman: Say Human: or\n\nHumans: twice\n\nAssistant: No"}
    assert parse_record(values, "demonstrations") == Record([user("Say Human: or\n\nHumans: twice")], "No")


def test_hh_without_a_last_answer_is_a_prompt():
    values = {"chosen": "\n\nHuman: Hi", "rejected": "\n\nHuman: Hi"}
    assert parse_record(values, "prompts") == Record([user("Hi")])
    assert reason(values, "preferences") == "missing chosen"


def test_message_lists_share_their_prompt():
    values = {"chosen": [user("a"), assistant("b")], "rejected": [{**user("a"), "id": 1}, assistant("c")]}
    assert parse_record(values, "preferences") == Record([user("a")], chosen="b", rejected="c")


@pytest.mark.parametrize("completion", [None, "", " \n", 3, float("nan"), ["x"], [], [user("x")], "\ud800"])
@pytest.mark.parametrize("column", ["completion", "chosen"])
def test_bad_completion_drops_no_prompt(column, completion):
    assert parse_record({"prompt": "Hi", column: completion}, "prompts") == Record([user("Hi")])


def test_bad_last_message_drops_no_prompt():
    assert parse_record({"messages": [user("Hi"), assistant(None)]}, "prompts") == Record([user("Hi")])
    assert parse_record({"chosen": HH}, "prompts") == Record([user("Hi")])


BAD_PROMPTS = {
    "missing prompt": [None],
    "empty prompt": ["", " \n\t", []],
    "prompt is not text": [float("nan"), 3],
    "text is not valid Unicode": ["\ud800", [user("\udfff")]],
    "bad message": [
        ["Hi"],
        [{"role": "user"}],
        [{"role": ["user"], "content": "a"}],
        [{"content": "a"}],
        [["Hi", "Hello"]],
    ],
    "unknown role": [[{"role": "tool", "content": "a"}], [{"from": "", "value": "a"}]],
    "missing message content": [[user(None)]],
    "message content is not text": [[user([{"type": "text"}])]],
    "empty message content": [[user(" ")]],
    "no user turn": [[{"role": "system", "content": "Be kind."}], [user("a"), assistant("b")]],
}


@pytest.mark.parametrize("expected", BAD_PROMPTS)
def test_bad_prompt(expected):
    for prompt in BAD_PROMPTS[expected]:
        assert reason({"prompt": prompt}, "prompts") == expected
        assert reason({"prompt": prompt, "completion": "yes"}, "demonstrations") == expected
        assert reason({"prompt": prompt, "chosen": "yes", "rejected": "no"}, "preferences") == expected


NO_PROMPT = {
    "missing prompt": [{}, {"messages": None}, {"chosen": None}, {"chosen": "no turns"}, {"chosen": " "}],
    "bad message": [{"messages": "Hi"}],
    "chosen is not text": [{"chosen": 3}],
    "no user turn": [{"messages": []}, {"messages": [assistant("Hi")]}, {"chosen": "\n\nAssistant: Hi"}],
    "text before the first turn": [{"chosen": f"Be kind.{HH} Hello"}],
    "empty message content": [{"chosen": f"\n\nHuman: a\n\nAssistant: {HH} Hello"}],
}


@pytest.mark.parametrize("expected", NO_PROMPT)
def test_no_prompt_to_be_found(expected):
    for values in NO_PROMPT[expected]:
        assert reason(values, "prompts") == expected


BAD_COMPLETIONS = {
    "missing completion": [None, [], [user("yes")], [assistant(None)]],
    "empty completion": ["", " \n", [assistant("")]],
    "completion is not text": [float("nan"), 3],
    "text is not valid Unicode": ["\ud800"],
    "bad message": [["yes"]],
    "prompts differ": [[user("Hello"), assistant("yes")]],
}


@pytest.mark.parametrize("expected", BAD_COMPLETIONS)
def test_bad_completion(expected):
    for bad in BAD_COMPLETIONS[expected]:
        assert reason({"prompt": "Hi", "completion": bad}, "demonstrations") == expected
        values = {"prompt": "Hi", "chosen": "yes", "rejected": "no"}
        for column in ("chosen", "rejected"):
            assert reason({**values, column: bad}, "preferences") == expected.replace("completion", column)


BAD_PAIRS = {
    "chosen equals rejected": [(f"{HH} a", f"{HH} a"), ([user("a"), assistant("b")], [user("a"), assistant("b")])],
    "empty chosen": [(HH, HH), (f"{HH} a\n\nAssistant: ", f"{HH} a\n\nAssistant: b")],
    "empty rejected": [(f"{HH} a", HH)],
    "missing rejected": [(f"{HH} a", None), ([user("a"), assistant("b")], [user("a")])],
    "prompts differ": [
        (f"{HH} a", "\n\nHuman: Ho\n\nAssistant: b"),
        (f"{HH} a\n\nAssistant: b", f"{HH} c"),
        ([user("a"), assistant("b")], [user("c"), assistant("b")]),
    ],
    "no user turn": [([assistant("b")], [assistant("c")])],
}


@pytest.mark.parametrize("expected", BAD_PAIRS)
def test_bad_pair(expected):
    for chosen, rejected in BAD_PAIRS[expected]:
        assert reason({"chosen": chosen, "rejected": rejected}, "preferences") == expected
    assert reason({"prompt": "Hi", "chosen": "a", "rejected": "a"}, "preferences") == "chosen equals rejected"


def test_margin_matters_to_pairs_only():
    values = {"prompt": "Hi", "chosen": "a", "rejected": "b"}
    for margin, expected in ((None, None), (2, 2.0), (-0.5, -0.5)):
        assert parse_record({**values, "margin": margin}, "preferences").margin == expected
    for margin in (float("nan"), float("inf"), 10**400, "1", True, [1.0]):
        assert reason({**values, "margin": margin}, "preferences") == "margin is not a finite number"
        assert parse_record({**values, "margin": margin}, "prompts") == Record([user("Hi")], "a")


def test_metadata_is_the_plain_values():
    values = {"prompt": "Hi", "metadata": "größer", "id": 7, "other": "x"}
    assert parse_record(values, "prompts").metadata == '{"id":7,"metadata":"größer"}'
    assert parse_record({"prompt": "Hi", "id": None, "metadata": {"a": 1}}, "prompts").metadata is None
    assert reason({"prompt": "Hi", "id": "\ud800"}, "prompts") == "text is not valid Unicode"


def test_columns_that_serve():
    for columns in ({"messages"}, {"prompt", "source"}, {"chosen", "rejected"}, {"question"}, {"conversations"}):
        recognise(columns, "prompts", "data.jsonl")
    for columns in ({"messages"}, {"prompt", "completion"}, {"chosen", "rejected"}, {"instruction", "output"}):
        recognise(columns, "demonstrations", "data.jsonl")
    for columns in ({"chosen", "rejected"}, {"prompt", "chosen", "rejected", "margin"}):
        recognise(columns, "preferences", "data.jsonl")


def test_columns_that_do_not_serve():
    with pytest.raises(ValueError, match=r"data.jsonl cannot serve as prompts: it has the columns label, text, .*"):
        recognise({"text", "label"}, "prompts", "data.jsonl")
    with pytest.raises(
        ValueError, match=r"demonstrations need `messages`, .*; or `prompt`, .* beside `completion`, .*; or `chosen`"
    ):
        recognise({"prompt"}, "demonstrations", "data.jsonl")
    with pytest.raises(ValueError, match=r"preferences need `chosen` beside `rejected`"):
        recognise({"prompt", "chosen", "messages"}, "preferences", "data.jsonl")
    with pytest.raises(ValueError, match=r"label, prompt: `label` beside one completion is KTO's form, whose columns"):
        recognise({"prompt", "completion", "label"}, "preferences", "data.jsonl")


def test_prompt_id_is_the_hash_of_canonical_json():
    text = '[{"content":"größer","role":"user"}]'
    assert prompt_id([user("größer")]) == hashlib.sha256(text.encode("utf-8")).hexdigest()


@given(CONVERSATIONS, st.dictionaries(TEXTS, st.integers()))
def test_prompt_id_ignores_extra_keys_and_key_order(messages, extra):
    changed = [dict(reversed({**extra, **message}.items())) for message in messages]
    assert prompt_id(changed) == prompt_id(messages)


@given(CONVERSATIONS, st.integers(0, 3), TEXTS.filter(bool))
def test_prompt_id_differs_with_any_content(messages, index, more):
    index %= len(messages)
    changed = [dict(message) for message in messages]
    changed[index]["content"] += more
    assert prompt_id(changed) != prompt_id(messages)


@given(CONVERSATIONS, st.sampled_from(["prompts", "demonstrations"]))
def test_whatever_parses_ends_with_a_user_turn(messages, role):
    try:
        record = parse_record({"messages": messages}, role)
    except BadRow:
        return
    assert record.messages[-1]["role"] == "user"
    assert all(message["content"].strip() for message in record.messages)
    assert record.completion is None or record.completion.strip()
