"""Prompts that keep coming: what the store takes, in what order; mistakes."""

import gzip
import json
import uuid

import pytest
from adding import add, added, parts, write
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import ROOT

from flows import command_line
from flows.add_prompts import main
from flows.rs_dpo import rs_dpo
from tasks.data.added_prompts import ADDED_PROMPTS, read_added_prompts
from tasks.data.tally import Tally
from tasks.store.folders import Store

pytestmark = pytest.mark.usefixtures("server")


def counts(report):
    return {name: report[name] for name in ("read", "new", "known", "duplicate", "bad")}


# What is added


def test_new_known_and_duplicate_prompts(tmp_path, store, capsys):
    first = add(capsys, write(tmp_path / "a.jsonl", ["a", "b", "a", "c"]), "--store", store.uri)
    assert counts(first) == {"read": 4, "new": 3, "known": 0, "duplicate": 1, "bad": {}}
    again = add(capsys, write(tmp_path / "again.jsonl", ["c", "b", "a"]), "--store", store.uri)
    assert counts(again) == {"read": 3, "new": 0, "known": 3, "duplicate": 0, "bad": {}}
    more = add(capsys, write(tmp_path / "b.jsonl", ["d", "b", "e", "d"]), "--store", store.uri)
    assert counts(more) == {"read": 4, "new": 2, "known": 1, "duplicate": 1, "bad": {}}
    assert [report["store"] for report in (first, again, more)] == [store.uri] * 3
    assert added(store) == ["a", "b", "c", "d", "e"]
    assert [name.split("-")[0] for name in parts(store)] == ["00000000", "00000001"]


def test_every_form_of_data(tmp_path, capsys):
    store = Store(str(tmp_path / "store"))
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    rows = [
        {"messages": turns, "metadata": "kept"},
        {"chosen": "\n\nHuman: why?\n\nAssistant: so.", "rejected": "\n\nHuman: why?\n\nAssistant: no."},
    ]
    path = tmp_path / "forms.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    assert add(capsys, path, "--store", store.uri)["new"] == 2
    records = [record for _, record in read_added_prompts(ADDED_PROMPTS.find(store), Tally("added", 0))]
    assert [record.messages for record in records] == [turns[:1], [{"role": "user", "content": "why?"}]]
    assert [record.completion for record in records] == ["hi", "so."]
    assert [record.metadata for record in records] == ['{"metadata":"kept"}', None]


def test_the_split_of_a_saved_dataset(tmp_path, capsys):
    import datasets

    splits = {name: datasets.Dataset.from_dict({"prompt": [name]}) for name in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    store = Store(str(tmp_path / "store"))
    assert add(capsys, tmp_path / "saved", "--split", "test", "--store", store.uri)["new"] == 1
    assert added(store) == ["test"]


def test_the_report_for_people(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", ["a", "b", "a", ""])
    main([path, "--store", str(tmp_path / "store"), "--max-bad-fraction", "0.25"])
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: left out 1 bad rows of 4: {{'empty prompt': 1}}",
        f"{path}: 4 rows, 2 new prompts, 0 known, 1 duplicate, 1 bad",
        "sent no event: PREFECT_API_URL is not set. Runs that wait for prompts.added do not start by themselves",
    ]


def test_bad_rows_up_to_the_limit_are_counted_by_reason(tmp_path, store, capsys):
    path = write(tmp_path / "a.jsonl", ["a", "", 7, "b", "  "])
    report = add(capsys, path, "--store", store.uri, "--max-bad-fraction", 0.6)
    assert counts(report) == {
        "read": 5,
        "new": 2,
        "known": 0,
        "duplicate": 0,
        "bad": {"empty prompt": 2, "prompt is not text": 1},
    }
    assert added(store) == ["a", "b"]


def test_more_bad_rows_than_the_limit_add_nothing(tmp_path, store, capsys):
    path = write(tmp_path / "a.jsonl", ["a", "", 7, "b", "  "])
    message = refused(capsys, path, "--store", store.uri, "--max-bad-fraction", 0.59)
    for piece in (path, "3 of 5 rows are bad, more than max_bad_fraction = 0.59", "empty prompt: 2 (first a.jsonl"):
        assert piece in message
    assert store.list("tables") == []


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 15), min_size=1), min_size=1, max_size=6))
def test_any_additions_give_each_prompt_once_in_the_order_of_coming(additions):
    store, seen = Store(f"memory://{uuid.uuid4().hex}"), {}
    for numbers in additions:
        rows = {f"id{n}": row(n) for n in numbers}
        table = ADDED_PROMPTS.lay_out(rows.values())
        assert ADDED_PROMPTS.append(store, table) == len(rows.keys() - seen)
        seen |= dict.fromkeys(rows)
        assert ADDED_PROMPTS.append(store, table) == 0
    assert added(store) == [f"text{id_.removeprefix('id')}" for id_ in seen]


def row(number):
    return {
        "prompt_id": f"id{number}",
        "messages": [{"role": "user", "content": f"text{number}"}],
        "source": "a.jsonl",
        "reference_completion": None,
        "metadata": None,
    }


# A run that reads them


def test_a_dry_run_on_added_prompts_is_that_on_their_file(tmp_path, capsys, monkeypatch, test_data):
    monkeypatch.chdir(ROOT)
    store = Store(str(tmp_path / "store"))
    assert "no prompts have been added" in refused(capsys, *dry_run(store, "added"), command=run_flow)
    add(capsys, "configs/stories_prompts.jsonl", "--store", store.uri)
    before, keys = parts(store), []
    for prompts in ("added", "configs/stories_prompts.jsonl"):
        run_flow(dry_run(store, prompts))
        steps = json.loads(capsys.readouterr().out.splitlines()[-1])["plan"]
        keys.append({step["stage"]: step["key"] for step in steps})
    assert keys[0]["load_prompts"] != keys[1]["load_prompts"]
    assert keys[0]["sample_completions"] == keys[1]["sample_completions"]
    assert parts(store) == before
    assert store.list("load_prompts") == []


def dry_run(store, prompts):
    overrides = [f"data.prompts={prompts}", f"store={store.uri}"]
    return ["configs/stories.yaml", *(part for value in overrides for part in ("--set", value)), "--dry-run", "--json"]


def run_flow(arguments):
    command_line.main(rs_dpo, arguments)


# Mistakes: one message, exit code 2, nothing added


def refused(capsys, *arguments, command=main):
    with pytest.raises(SystemExit) as caught:
        command([*map(str, arguments)])
    assert caught.value.code == 2
    out, errors = capsys.readouterr()
    assert "Traceback" not in out + errors
    assert errors.count("error:") == 1
    return errors


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (["nothing.jsonl"], ["no file or folder nothing.jsonl", "check the path"]),
        (["{file}", "--nam", "x", "--sore", "y"], ["unrecognized arguments: --sore y"]),
        (["{file}", "--max-bad-fraction", "2"], ["max_bad_fraction = 2.0 must be from 0 to 1"]),
        (["{file}", "--max-bad-fraction", "nan"], ["max_bad_fraction = nan must be from 0 to 1"]),
        (["{file}", "--name", "x"], ["name = 'x' is for folders and hub datasets", "leave it out"]),
        (["{file}", "--data-dir", "x"], ["data_dir = 'x' is for folders and hub datasets"]),
        (["{file}", "--store", "/proc/nothing/here"], ["store file:///proc/nothing/here cannot be written"]),
        (["{file}", "--store", "s3://key:pass-0451@bucket/x"], ["store must not carry credentials"]),
        (["s3://key:pass-0451@bucket/x.jsonl"], ["a secret must not be here"]),
        (["{columns}"], ["columns.jsonl line 1 cannot serve as prompts", "Rename the columns"]),
        (["{cut}"], ["cut.jsonl line 2 is not JSON"]),
        (["no-such-owner/no-such-dataset", "--split", "test"], ["neither a local file", "HF_HUB_OFFLINE"]),
        ([""], ["path = ''"]),
    ],
)
def test_mistakes(tmp_path, capsys, arguments, pieces):
    store = tmp_path / "store"
    (tmp_path / "columns.jsonl").write_text('{"title": "a"}\n')
    (tmp_path / "cut.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b\n')
    names = {name: str(tmp_path / f"{name}.jsonl") for name in ("columns", "cut")}
    names["file"] = write(tmp_path / "file.jsonl", ["a"])
    given = [argument.format(**names) for argument in arguments]
    message = refused(capsys, *(given if "--store" in given else [*given, "--store", store]))
    for piece in pieces:
        assert piece in message
    assert "pass-0451" not in message
    assert not [path for path in store.rglob("*") if path.is_file()]
