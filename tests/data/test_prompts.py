"""Prompts come in: real HH files; what is dropped and under which reason."""

from typing import NamedTuple

import pytest
from loaded import TOO_LONG, asked, draft, id_of, ids, load, no_held_out, write

from tasks.config.data import DataConfig
from tasks.config.sections import ModelSource
from tasks.data.prompt_table import hash_fraction
from tasks.data.records import prompt_id
from tasks.import_model import model_files
from tasks.prompts import find_data, load_prompts
from tasks.store.artifacts import NOTHING, Artifact
from tasks.store.parquet import read_table
from tasks.store.schemas import SCHEMAS
from tasks.training_data import load_demonstrations, load_preferences

# Real files


class HhFile(NamedTuple):
    """A file of HH, its rows, and how many of them are bad in each way."""

    name: str
    rows: int
    differ: int
    identical: int
    empty: int


HH_FILES = [HhFile("harmless-base", 2312, 5, 0, 4), HhFile("helpful-base", 2354, 9, 2, 4)]


@pytest.mark.parametrize("file", HH_FILES, ids=lambda file: "-".join(map(str, file)))
def test_hh_files(test_data, local, policy, file):
    path = str(test_data / f"hh-rlhf/{file.name}_test.jsonl.gz")
    data = DataConfig(prompts=path, preferences=path, demonstrations=path, max_bad_fraction=0.5)
    files = find_data(local, data)
    assert files.prompts.digest == files.preferences.digest != ""
    assert files.evaluation_prompts is NOTHING
    held_out, prompts = load(local, policy, data, 64)
    preferences = load_preferences.body(draft(local, "preferences"), files.preferences, held_out, NOTHING, data)
    demonstrations = load_demonstrations.body(
        draft(local, "demonstrations"), files.demonstrations, held_out, NOTHING, data
    )

    expected = {"prompts differ": file.differ, "chosen equals rejected": file.identical}
    bad = preferences.stats["bad"]
    assert {reason: bad.get(reason, 0) for reason in expected} == expected
    assert bad.get("empty chosen", 0) + bad.get("empty rejected", 0) == file.empty
    assert preferences.stats["read"] == file.rows
    left = preferences.stats["left_out"]
    assert file.rows == preferences.rows + sum(bad.values()) + sum(left.values())
    assert 0.07 < left["held out for evaluation"] / file.rows < 0.13

    assert not ids(held_out) & ids(prompts)
    for artifact in (preferences, demonstrations):
        table = read_table(artifact)
        assert table.schema == SCHEMAS[artifact.kind]
        assert not ids(held_out) & set(table["prompt_id"].to_pylist())
        assert not [id_ for id_ in table["prompt_id"].to_pylist() if hash_fraction(id_) < 0.1]
    for artifact in (held_out, prompts):
        table = read_table(artifact)
        assert len(set(table["prompt_id"].to_pylist())) == artifact.rows
        assert any(len(messages) > 1 for messages in table["messages"].to_pylist())
        assert all(messages[-1]["role"] == "user" for messages in table["messages"].to_pylist())
        assert all(prompt_id(row["messages"]) == row["prompt_id"] for row in table.to_pylist())
    assert prompts.stats["bad"][f"{TOO_LONG} (448 tokens)"] > 10


def test_hh_prompts_too_long_for_the_context_stop_the_run(test_data, local, policy):
    data = DataConfig(prompts=str(test_data / "hh-rlhf/harmless-base_test.jsonl.gz"))
    with pytest.raises(ValueError, match=TOO_LONG) as caught:
        load_prompts.body(draft(local, "prompts"), NOTHING, no_held_out(local), policy, NOTHING, data, 64)
    assert "harmless-base_test.jsonl.gz line" in str(caught.value)
    assert local.list("prompts") == []


# Bad rows

BAD = [
    {"prompt": "fine 1"},
    {"prompt": None},
    {"prompt": "  "},
    {"prompt": 7},
    {"prompt": "fine 2"},
    {"prompt": ""},
    {"prompt": "word " * 600},
]


def test_bad_rows_are_counted_under_their_reasons(tmp_path, local, policy):
    other = write(tmp_path / "e.jsonl", asked(["x"]))
    data = DataConfig(prompts=write(tmp_path / "a.jsonl", BAD), evaluation_prompts=other, max_bad_fraction=5 / 7)
    _, prompts = load(local, policy, data)
    assert prompts.rows == 2
    assert prompts.stats == {
        "read": 7,
        "bad": {
            "missing prompt": 1,
            "empty prompt": 2,
            "prompt is not text": 1,
            f"{TOO_LONG} (496 tokens)": 1,
        },
        "left_out": {},
    }


def test_too_many_bad_rows_name_the_reasons_and_the_first_rows(tmp_path, local, policy):
    other = write(tmp_path / "e.jsonl", asked(["x"]))
    path = write(tmp_path / "a.jsonl", BAD)
    with pytest.raises(ValueError, match=r"5 of 7 rows are bad, more than max_bad_fraction = 0.71") as caught:
        load(local, policy, DataConfig(prompts=path, evaluation_prompts=other, max_bad_fraction=0.71))
    message = str(caught.value)
    for piece in (
        path,
        "missing prompt: 1 (first a.jsonl line 2)",
        "empty prompt: 2 (first a.jsonl line 3)",
        "prompt is not text: 1 (first a.jsonl line 4)",
        "(first a.jsonl line 7)",
        "raise the fraction",
    ):
        assert piece in message
    assert local.list("prompts") == []


def test_the_default_drops_one_row_of_a_hundred(tmp_path, local, policy):
    other = write(tmp_path / "e.jsonl", asked(["x"]))
    good = asked(f"Question {n}?" for n in range(99))
    fine = write(tmp_path / "a.jsonl", [*good, {"prompt": ""}])
    assert load(local, policy, DataConfig(prompts=fine, evaluation_prompts=other))[1].rows == 99
    bad = write(tmp_path / "b.jsonl", [*good[:-1], {"prompt": ""}, {"prompt": ""}])
    with pytest.raises(ValueError, match="2 of 100 rows are bad"):
        load(local, policy, DataConfig(prompts=bad, evaluation_prompts=other))


def test_bad_preferences_are_counted(tmp_path, local):
    rows = [
        {"prompt": "a", "chosen": "x", "rejected": "y", "margin": 2},
        {"prompt": "a", "chosen": "x", "rejected": "y", "margin": 2.0},
        {"prompt": "a", "chosen": "x", "rejected": "z"},
        {"prompt": "b", "chosen": "x", "rejected": "x"},
        {"prompt": "b", "chosen": "x", "rejected": None},
        {"prompt": "c", "chosen": "", "rejected": "x"},
    ]
    data = DataConfig(
        prompts="unused",
        evaluation_prompts="unused",
        preferences=write(tmp_path / "a.jsonl", rows),
        max_bad_fraction=0.5,
    )
    preferences = load_preferences.body(draft(local, "p"), NOTHING, no_held_out(local), NOTHING, data)
    assert preferences.stats["bad"] == {"chosen equals rejected": 1, "missing rejected": 1, "empty chosen": 1}
    assert preferences.stats["left_out"] == {"duplicate": 1}
    assert [(row["rejected"], row["margin"]) for row in read_table(preferences).to_pylist()] == [
        ("y", 2.0),
        ("z", None),
    ]


def test_no_usable_demonstrations(tmp_path, local):
    data = DataConfig(
        prompts="unused",
        evaluation_prompts="unused",
        demonstrations=write(tmp_path / "a.jsonl", [{"prompt": "a", "completion": ""}]),
        max_bad_fraction=1,
    )
    with pytest.raises(ValueError, match=r"a.jsonl has no usable demonstrations: .*empty completion"):
        load_demonstrations.body(draft(local, "d"), NOTHING, no_held_out(local), NOTHING, data)


@pytest.mark.parametrize("texts", [["a"], ["a", "a", "a"]])
def test_fewer_than_two_prompts(tmp_path, local, policy, texts):
    other = write(tmp_path / "e.jsonl", asked(["x"]))
    path = write(tmp_path / "a.jsonl", asked(texts))
    with pytest.raises(ValueError, match=r"a.jsonl has 1 usable prompts, at least 2 are needed"):
        load(local, policy, DataConfig(prompts=path, evaluation_prompts=other))


def test_no_held_out_prompt(tmp_path, local, policy):
    kept = [text for n in range(20) if hash_fraction(id_of(text := f"Question {n}?")) >= 0.5]
    data = DataConfig(prompts=write(tmp_path / "a.jsonl", asked(kept)), evaluation_fraction=0.5)
    with pytest.raises(ValueError, match=r"no prompt is held out for evaluation: raise data.evaluation_fraction = 0.5"):
        load(local, policy, data)


def test_the_longest_prompt_that_fits(tmp_path, local, policy):
    # "<s>" and a template around it take some ids; "a" repeated takes one each.
    other = write(tmp_path / "e.jsonl", asked(["x"]))
    data = DataConfig(
        prompts=write(tmp_path / "a.jsonl", asked(["b", *("a b " * n for n in range(200, 260))])),
        evaluation_prompts=other,
        max_bad_fraction=1,
    )
    fits = [load(local, policy, data, max_new_tokens)[1].rows for max_new_tokens in (8, 10, 12)]
    assert fits[0] > fits[1] > fits[2] > 2


def test_a_prompt_that_the_template_refuses(tmp_path, local, policy, test_data):
    template = tmp_path / "strict.jinja"
    template.write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
    )
    source = ModelSource(path=str(test_data / "stories260k"), chat_template=str(template))
    folder = tmp_path / "policy"
    folder.mkdir()
    for name, content in model_files(test_data / "stories260k", source, "policy").items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    data = DataConfig(
        prompts=write(tmp_path / "a.jsonl", asked(["a", "b"])),
        evaluation_prompts=write(tmp_path / "b.jsonl", asked(["x"])),
        system_prompt="Be kind.",
    )
    with pytest.raises(ValueError, match="refused by the policy's chat template \\(no\\): 1"):
        load(local, Artifact(kind="model", uri=str(folder), digest="d"), data)
