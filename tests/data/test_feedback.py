"""Feedback on sampled completions: ids are resolved into texts, and what they do not name is counted."""

import json

import pyarrow as pa
import pytest
from loaded import write

from flows.add_preferences import main
from tasks.data.added_preferences import ADDED_PREFERENCES, OPPOSITE
from tasks.data.loading import commit_rows
from tasks.data.records import prompt_id
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable
from tasks.store.schemas import SCHEMAS
from tasks.store.slices import Slice, commit_slices

pytestmark = pytest.mark.usefixtures("server")
TEXTS = ("yes", "no", "\n\nHuman: really?\n\nAssistant: [1]", "no", "")


def sampled(store: Store) -> tuple[Artifact, list[str]]:
    """Commit five completions of each of three prompts, in two parts; return them and the prompts' ids."""
    conversations = [[{"role": "user", "content": f"Question {n}?"}] for n in range(3)]
    rows = [{"prompt_id": prompt_id(messages), "messages": messages, "source": "test"} for messages in conversations]
    asked = commit_rows(Draft(store, Provenance(stage="load_prompts", version=1, key="d" * 64)), "prompts", rows, {})
    table = GrowingTable(store, "completions", Provenance(stage="completions", version=1, key="c" * 64))
    ids = [row["prompt_id"] for row in rows]
    parts = [table.append(str(number), rows_of(own)) for number, own in enumerate((ids[:2], ids[2:]))]
    origin = Provenance(stage="sample_completions", version=1, key="5" * 64, inputs={"prompts": asked.digest})
    return commit_slices(Draft(store, origin), "completions", [Slice(part) for part in parts], {}), ids


def rows_of(ids):
    rest = {"token_ids": [1], "num_tokens": 1, "finish_reason": "stop"}
    rows = [
        {"prompt_id": id_, "completion_id": number, "completion": text, **rest}
        for id_ in ids
        for number, text in enumerate(TEXTS)
    ]
    return pa.Table.from_pylist(rows, SCHEMAS["completions"])


def row(id_, chosen, rejected, annotator="ann"):
    return {"prompt_id": id_, "chosen_id": chosen, "rejected_id": rejected, "annotator": annotator}


def add(capsys, path, store, completions, fraction=0.01):
    options = ["--store", store.uri, "--completions", completions, "--max-bad-fraction", str(fraction), "--json"]
    main([path, *options])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_ids_become_texts_of_their_prompts(tmp_path, store, capsys):
    drawn, ids = sampled(store)
    rows = [row(ids[2], 0, 1), row(ids[0], 2, 0, " bob "), row(ids[2], 0, 1), row(ids[2], 0, 3)]
    report = add(capsys, write(tmp_path / "f.jsonl", rows), store, drawn.uri)
    assert (report["read"], report["new"], report["duplicate"], report["bad"]) == (4, 2, 2, {})
    found = list(ADDED_PREFERENCES.read(ADDED_PREFERENCES.find(store)))
    facts = [(each["prompt_id"], each["chosen"], each["rejected"], each["annotator"]) for each in found]
    assert facts == [(ids[2], "yes", "no", "ann"), (ids[0], TEXTS[2], "yes", "bob")]
    assert all(prompt_id(each["messages"]) == each["prompt_id"] for each in found)
    again = add(capsys, write(tmp_path / "f.jsonl", rows[:1]), store, drawn.uri)
    assert (again["new"], again["known"]) == (0, 1)


def test_what_names_nothing_or_says_nothing_is_a_bad_row(tmp_path, local, capsys):
    drawn, (first, *_) = sampled(local)
    rows = [
        row("f" * 64, 0, 1),
        row(first, 9, 0),
        row(first, 0, -1),
        row(first, 1, 1),
        row(first, 1, 3),  # two samples, one text
        row(first, 0, 4),  # an empty one
        row(first, "0", 1),
        row(first, True, 1),
        row(first, 0, 1, " "),
        row(first, 0, 1, None),
        row(first, 0, 1),
        row(first, 3, 0),  # the same texts the other way round, by the same person
    ]
    path = write(tmp_path / "f.jsonl", rows)
    report = add(capsys, path, local, drawn.uri.removeprefix("file://"), 0.95)
    assert report["new"] == 1
    assert report["bad"] == {
        "unknown prompt_id": 1,
        "unknown chosen_id": 1,
        "unknown rejected_id": 1,
        "chosen_id equals rejected_id": 1,
        "chosen equals rejected": 1,
        "empty rejected": 1,
        "chosen_id is no whole number": 2,
        "empty annotator": 1,
        "missing annotator": 1,
        OPPOSITE: 1,
    }
    message = refused(capsys, path, local, drawn.uri)
    assert "11 of 12 rows are bad, more than max_bad_fraction = 0.01" in message
    assert "unknown prompt_id: 1 (first f.jsonl line 1)" in message


@pytest.mark.parametrize(
    ("completions", "message"),
    [
        ("{store}/sample_completions/" + "0" * 64, "is no artifact of"),
        ("{store}/load_prompts/" + "d" * 64, "holds prompts: name a folder of sample_completions"),
        ("{store}/tables/completions/" + "c" * 64 + "/0", "holds completions: name a folder of sample_completions"),
        ("/elsewhere/sample_completions/" + "5" * 64, "is no artifact of"),
        ("sample_completions", "is no artifact of"),
    ],
)
def test_completions_that_are_not_there_are_refused(tmp_path, local, capsys, completions, message):
    _, ids = sampled(local)
    path = write(tmp_path / "f.jsonl", [row(ids[0], 0, 1)])
    assert message in refused(capsys, path, local, completions.format(store=local.uri))


def test_completions_whose_prompts_are_gone_are_refused(tmp_path, local, capsys):
    drawn, ids = sampled(local)
    path = write(tmp_path / "f.jsonl", [row(ids[0], 0, 1)])
    local.delete("load_prompts/" + "d" * 64)
    assert "the prompts of" in refused(capsys, path, local, drawn.uri)


def test_a_file_of_the_other_form_is_refused_with_the_remedy(tmp_path, local, capsys):
    drawn, ids = sampled(local)
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    message = refused(capsys, pairs, local, drawn.uri)
    assert "has no column prompt_id, chosen_id, rejected_id, annotator" in message
    assert "leave --completions out" in message
    feedback = write(tmp_path / "f.jsonl", [row(ids[0], 0, 1)])
    with pytest.raises(SystemExit):
        main([feedback, "--store", local.uri])
    message = capsys.readouterr().err
    assert "cannot serve as preferences" in message
    assert "chosen_id and rejected_id name sampled completions: add them with `--completions URI`" in message


def refused(capsys, path, store, completions):
    with pytest.raises(SystemExit) as caught:
        main([path, "--store", store.uri, "--completions", completions])
    assert caught.value.code == 2
    out, errors = capsys.readouterr()
    assert "Traceback" not in out + errors
    return errors
