"""Preferences in the forms in which data sets have them: rows of the real schemas, with invented texts."""

import json
import math
from collections import Counter
from itertools import pairwise

import pytest
from loaded import write

from tasks.config.errors import ConfigurationError
from tasks.config.sections import PreferenceSource
from tasks.data.formats.comparisons import read_preferences
from tasks.data.formats.known import FORMATS, find_format
from tasks.data.tally import Tally

WEBGPT = {
    "question": {"dataset": "triviaqa", "id": "q1", "full_text": "Which seal is grey?"},
    "quotes_0": {"title": ["Seals"], "extract": ["Grey seals are grey."]},
    "answer_0": "The grey seal [1].",
    "tokens_0": {"prefix": [1], "completion": [2]},
    "score_0": 0.25,
    "quotes_1": {"title": [], "extract": []},
    "answer_1": "None.",
    "tokens_1": {"prefix": [1], "completion": [3]},
    "score_1": -0.25,
}
SHP = {
    "post_id": "p1",
    "domain": "askseals_train",
    "upvote_ratio": 0.9,
    "history": "How do I feed a seal?",
    "c_root_id_A": "a",
    "c_root_id_B": "b",
    "human_ref_A": "You do not.",
    "human_ref_B": "With fish.",
    "labels": 0,
    "score_A": 4,
    "score_B": 12,
    "score_ratio": 3.0,
}
ULTRAFEEDBACK = {
    "source": "evol_instruct",
    "instruction": "Name a seal.",
    "models": ["a", "b", "c"],
    "completions": [
        {"model": "a", "response": "Bob", "custom_system_prompt": "x", "overall_score": 7.0, "fine-grained_score": 2.0},
        {"model": "b", "response": "Ann", "custom_system_prompt": "x", "overall_score": 7.0, "fine-grained_score": 4.5},
        {"model": "c", "response": "No.", "custom_system_prompt": "x", "overall_score": 1.0, "fine-grained_score": 3.0},
    ],
    "correct_answers": ["None"],
    "incorrect_answers": ["None"],
}
NECTAR = {
    "prompt": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Name a seal.\n\nAssistant: ",
    "answers": [{"answer": name, "model": "m", "rank": rank} for name, rank in (("b", 2.0), ("a", 1.0), ("c", 3.0))],
    "turns": 2,
    "num_responses": 3,
    "source": ["sharegpt"],
    "good_natured": True,
}
RATED = {"correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 1}
HELPSTEER = [
    {"prompt": "Hi\n<extra_id_1>Assistant\nHello.\n<extra_id_1>User\nBye", "response": text, "helpfulness": n, **RATED}
    for text, n in (("Good bye.", 4), ("What?", 1))
]
HELPSTEER2 = {
    "split": "train",
    "prompt": "Name a seal.",
    "response_1": "Bob",
    "response_2": "No.",
    "preference_strength": -2,
    "preference_statement": "Response 1 is better than Response 2.",
}
HELPSTEER3 = {
    "domain": "general",
    "language": "english",
    "context": [{"role": "user", "content": "Name a seal."}],
    "response1": "No.",
    "response2": "Bob",
    "overall_preference": 3,
    "individual_preference": [{"score": 3, "reasoning": "a name", "feedback1": "", "feedback2": ""}],
}
SAFERLHF = {
    "prompt": "How do I steal a seal?",
    "response_0": "At night.",
    "response_1": "Do not.",
    "is_response_0_safe": False,
    "is_response_1_safe": True,
    "better_response_id": 0,
    "safer_response_id": 1,
}
KTO = [
    {"prompt": "Name a seal.", "completion": text, "label": label}
    for text, label in (("Bob", True), ("No.", False), ("Ann", True), ("Why?", False))
]
BINARIZED = {
    "prompt": "Name a seal.",
    "prompt_id": "0",
    "chosen": [{"role": "user", "content": "Name a seal."}, {"role": "assistant", "content": "Bob"}],
    "rejected": [{"role": "user", "content": "Name a seal."}, {"role": "assistant", "content": "No."}],
    "messages": [{"role": "user", "content": "Name a seal."}, {"role": "assistant", "content": "Bob"}],
    "score_chosen": 8.5,
    "score_rejected": 6.0,
}
SKYWORK = {name: BINARIZED[name] for name in ("chosen", "rejected")} | {"source": "magpie"}
OASST = {
    "message_tree_id": "t",
    "tree_state": "ready_for_export",
    "prompt": {
        "text": "Name a seal.",
        "role": "prompter",
        "replies": [
            {"text": "No.", "role": "assistant", "rank": 1, "replies": []},
            {
                "text": "Bob",
                "role": "assistant",
                "rank": 0,
                "replies": [
                    {
                        "text": "Why?",
                        "role": "prompter",
                        "replies": [
                            {"text": "So.", "role": "assistant", "rank": 0},
                            {"text": "Hm.", "role": "assistant", "rank": 2},
                            {"text": "Er.", "role": "assistant", "rank": None},
                        ],
                    }
                ],
            },
        ],
    },
}


def source(tmp_path, rows, **settings):
    rows = rows if isinstance(rows, list) else [rows]
    return PreferenceSource(path=write(tmp_path / "a.jsonl", rows), **settings)


def read(tmp_path, rows, **settings):
    """Return the tally, and of each pair its turns' texts, its sides and its margin."""
    tally = Tally("a.jsonl", 1.0)
    found = [record for _, record in read_preferences(source(tmp_path, rows, **settings), tally)]
    pairs = [("|".join(m["content"] for m in r.messages), r.chosen, r.rejected, r.margin) for r in found]
    return tally, pairs


NAME, LOG3 = "Name a seal.", math.log(12) - math.log(4)
CASES = {
    "webgpt": (WEBGPT, {}, [("Which seal is grey?", "The grey seal [1].", "None.", 0.5)]),
    "shp": (SHP, {}, [("How do I feed a seal?", "With fish.", "You do not.", LOG3)]),
    "ultrafeedback": (ULTRAFEEDBACK, {}, [(NAME, "Bob", "No.", 6.0), (NAME, "Ann", "No.", 6.0)]),
    "ultrafeedback fine": (
        ULTRAFEEDBACK,
        {"dimension": "fine-grained_score"},
        [(NAME, "Ann", "No.", 1.5), (NAME, "Ann", "Bob", 2.5), (NAME, "No.", "Bob", 1.0)],
    ),
    "nectar": (NECTAR, {}, [(f"Hi|Hello.|{NAME}", *p) for p in (("a", "b", 1), ("a", "c", 2), ("b", "c", 1))]),
    "helpsteer": (HELPSTEER, {"dimension": "helpfulness"}, [("Hi|Hello.|Bye", "Good bye.", "What?", 3.0)]),
    "helpsteer2": (HELPSTEER2, {}, [(NAME, "Bob", "No.", 2.0)]),
    "helpsteer3": (HELPSTEER3, {}, [(NAME, "Bob", "No.", 3.0)]),
    "better": (SAFERLHF, {"dimension": "better"}, [(SAFERLHF["prompt"], "At night.", "Do not.", None)]),
    "safer": (SAFERLHF, {"dimension": "safer"}, [(SAFERLHF["prompt"], "Do not.", "At night.", None)]),
    "kto": (KTO, {}, [(NAME, *p, None) for p in (("Bob", "No."), ("Bob", "Why?"), ("Ann", "No."), ("Ann", "Why?"))]),
    "binarized": (BINARIZED, {}, [(NAME, "Bob", "No.", None)]),
    "binarized scored": (BINARIZED, {"format": "scored_pairs"}, [(NAME, "Bob", "No.", 2.5)]),
    "skywork": (SKYWORK, {}, [(NAME, "Bob", "No.", None)]),
    "oasst": (OASST, {}, [(NAME, "Bob", "No.", 1.0), (f"{NAME}|Bob|Why?", "So.", "Hm.", 2.0)]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_form_gives_its_pairs(tmp_path, case):
    rows, settings, pairs = CASES[case]
    tally, found = read(tmp_path, rows, **settings)
    assert Counter(found) == Counter(pairs)
    assert not tally.bad
    ties = tally.left_out["tie"]
    assert tally.total == len(pairs) + ties
    assert ties == {"ultrafeedback": 1, "kto": 2}.get(case, 0)


BAD = {
    "score_0 is not a finite number": (WEBGPT | {"score_0": None}, {}),
    "question is no object with full_text": (WEBGPT | {"question": "Hi"}, {}),
    "empty chosen": (WEBGPT | {"answer_0": " "}, {}),
    "labels and scores say the opposite": (SHP | {"labels": 1}, {}),
    "labels is neither 0 nor 1": (SHP | {"labels": "A"}, {}),
    "score is not positive": (SHP | {"score_A": 0}, {}),
    "rank is not a finite number": (NECTAR | {"answers": [{"answer": "a", "rank": "first"}]}, {}),
    "answers is no list of objects": (NECTAR | {"answers": "a"}, {}),
    "a preference is not from -3 to 3": (HELPSTEER2 | {"preference_strength": 4}, {}),
    "no user turn": (HELPSTEER3 | {"context": None}, {}),
    "safer_response_id is neither 0 nor 1": (SAFERLHF | {"safer_response_id": -1}, {"dimension": "safer"}),
    "label is neither true nor false": (KTO[0] | {"label": "maybe"}, {}),
    "score_chosen is below score_rejected": (BINARIZED | {"score_chosen": 1}, {"format": "scored_pairs"}),
    "unknown role": (OASST | {"prompt": {"text": "Hi", "role": "judge"}}, {}),
    "chosen equals rejected": (HELPSTEER3 | {"response1": "Bob"}, {}),
    "images not supported": (HELPSTEER3 | {"images": ["seal.png"]}, {}),
}


@pytest.mark.parametrize("reason", BAD)
def test_what_is_wrong_with_a_row_is_counted_with_its_place(tmp_path, reason):
    row, settings = BAD[reason]
    tally, found = read(tmp_path, row, **settings)
    assert (dict(tally.bad), found, tally.examples) == ({reason: 1}, [], {reason: "a.jsonl line 1"})


def test_a_completion_that_stands_alone_is_no_pair(tmp_path):
    other = KTO[0] | {"prompt": "Name two seals."}
    tally, found = read(tmp_path, [*KTO[:2], other])
    assert len(found) == 1
    assert (tally.rows, tally.total, dict(tally.left_out)) == (3, 2, {"no other completion of the prompt": 1})


def test_texts_that_look_like_transcripts_stay_texts(tmp_path):
    text = "\n\nHuman: Hi\n\nAssistant: Hello"
    _, found = read(tmp_path, WEBGPT | {"answer_0": text, "question": {"full_text": text}})
    assert found == [(text, text, "None.", 0.5)]


REFUSED = [
    (SAFERLHF, {}, "dimension = None, but its rows are saferlhf: set it to better or safer"),
    (HELPSTEER, {"dimension": "safer"}, "its rows are helpsteer: set it to helpfulness or correctness"),
    (NECTAR, {"dimension": "rank"}, "dimension = 'rank', but its rows are nectar: leave it out"),
    (BINARIZED, {"dimension": "score"}, "its rows are plain pairs: leave it out"),
    (NECTAR, {"format": "nectarine"}, "format = 'nectarine' is none of webgpt, shp,"),
    (NECTAR, {"format": "shp"}, "line 1 has no column history, human_ref_A"),
    (NECTAR | SAFERLHF, {}, "line 1 may be nectar or saferlhf: name it as `format`"),
    ({"text": "Hi"}, {}, r"cannot serve as preferences.*another form that docs/data.md lists"),
]


@pytest.mark.parametrize(("row", "settings", "message"), REFUSED)
def test_a_source_whose_form_is_not_known_is_refused(tmp_path, row, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        find_format(source(tmp_path, row, **settings))


def test_each_form_but_one_is_told_by_its_columns(tmp_path):
    rows = [WEBGPT, SHP, OASST, ULTRAFEEDBACK, NECTAR, HELPSTEER[0], HELPSTEER2, HELPSTEER3, SAFERLHF, KTO[0]]
    needed = {"helpsteer": "verbosity", "saferlhf": "safer"}
    for row, (name, form) in zip(rows, FORMATS.items(), strict=False):
        assert find_format(source(tmp_path, row, dimension=needed.get(name))) is form
    assert [name for name, form in FORMATS.items() if not form.is_told] == ["scored_pairs"]


def test_real_trees_give_every_ordered_pair_of_ranked_siblings(test_data):
    path = test_data / "oasst/en_100_tree.jsonl"
    tally = Tally("oasst", 0.0)
    found = [record for _, record in read_preferences(PreferenceSource(path=str(path)), tally)]
    expected = 0
    waiting = [json.loads(line)["prompt"] for line in path.read_text().splitlines()]
    while waiting:
        message = waiting.pop()
        replies = message.get("replies", [])
        ranked = sum(reply.get("rank") is not None for reply in replies)
        expected += ranked * (ranked - 1) // 2
        waiting += replies
    assert len(found) == tally.total == expected == 754
    assert tally.rows == 100
    assert not tally.bad + tally.left_out
    assert {record.margin for record in found} >= {1.0, 2.0}
    assert max(len(record.messages) for record in found) > 1
    groups = [tuple(m["content"] for m in record.messages) for record in found]
    assert sum(a != b for a, b in pairwise(groups)) + 1 == len(set(groups))  # together
