"""Preferences that keep coming: pairs of texts, what the store takes of them, mistakes; killed additions; the event."""

import hashlib
import json
import re
import time

import pytest
from adding import start
from loaded import write
from prefect.client.orchestration import get_client

from flows.add_preferences import add_preferences, main
from tasks.config.sections import PreferenceSource
from tasks.data.added_preferences import ADDED_PREFERENCES, OPPOSITE, read_added_preferences
from tasks.data.tally import Tally
from tasks.store.folders import Store

pytestmark = pytest.mark.usefixtures("server")


def pair(prompt, chosen="yes", rejected="no", **more):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def add(capsys, path, store, *more):
    main([str(path), "--store", store.uri, "--json", *more])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    return {name: report[name] for name in ("read", "new", "known", "duplicate", "bad")}


def added(store):
    """Return what a reader gets: prompt, sides and annotator of each row."""
    records = read_added_preferences(ADDED_PREFERENCES.find(store), Tally("added", 0))
    return [(one.messages[-1]["content"], one.chosen, one.rejected, one.annotator) for _, one in records]


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main([*map(str, arguments)])
    assert caught.value.code == 2
    out, errors = capsys.readouterr()
    assert "Traceback" not in out + errors
    assert errors.count("error:") == 1
    return errors


def test_new_known_and_duplicate_preferences(tmp_path, store, capsys):
    first = [pair("a"), pair("b", annotator="ann"), pair("a"), pair("b", annotator="bob"), pair("b")]
    counts = add(capsys, write(tmp_path / "a.jsonl", first), store)
    assert counts == {"read": 5, "new": 4, "known": 0, "duplicate": 1, "bad": {}}
    again = [pair("b", annotator="ann"), pair("a", "yes", "never"), pair("a")]
    assert add(capsys, write(tmp_path / "b.jsonl", again), store) == {
        "read": 3,
        "new": 1,
        "known": 2,
        "duplicate": 0,
        "bad": {},
    }
    assert added(store) == [
        ("a", "yes", "no", None),
        ("b", "yes", "no", "ann"),
        ("b", "yes", "no", "bob"),
        ("b", "yes", "no", None),
        ("a", "yes", "never", None),
    ]


def test_messages_margins_and_metadata_are_kept(tmp_path, local, capsys):
    turns = [{"role": "user", "content": "Why?"}]
    sides = {side: [*turns, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    rows = [{**sides, "margin": 2, "id": 7, "annotator": 12}]
    assert add(capsys, write(tmp_path / "a.jsonl", rows), local)["new"] == 1
    ((where, record),) = read_added_preferences(ADDED_PREFERENCES.find(local), Tally("added", 0))
    assert where.startswith("a.jsonl preference ")
    assert (record.messages, record.margin, record.metadata) == (turns, 2.0, '{"id":7}')
    assert record.annotator == "12"


@pytest.mark.parametrize("at_once", [True, False], ids=["in one file", "one after the other"])
def test_an_annotator_who_prefers_both_is_heard_once_and_two_may_disagree(tmp_path, local, capsys, at_once):
    one, other = pair("a", annotator="ann"), pair("a", "no", "yes", annotator="ann")
    disagree = pair("a", "no", "yes", annotator="bob")
    files = [[one, other, disagree]] if at_once else [[one], [other, disagree]]
    reports = [
        add(capsys, write(tmp_path / f"{number}.jsonl", rows), local, "--max-bad-fraction", "0.5")
        for number, rows in enumerate(files)
    ]
    assert reports[-1]["bad"] == {OPPOSITE: 1}
    assert added(local) == [("a", "yes", "no", "ann"), ("a", "no", "yes", "bob")]
    message = refused(capsys, write(tmp_path / "again.jsonl", [other]), "--store", local.uri)
    assert re.search(rf"1 of 1 rows are bad.*{OPPOSITE}: 1 \(first again.jsonl line 1\)", message)


def test_pairs_that_name_nobody_may_disagree_as_in_a_file(tmp_path, local, capsys):
    path = write(tmp_path / "a.jsonl", [pair("a"), pair("a", "no", "yes")])
    assert add(capsys, path, local)["new"] == 2


def test_more_bad_rows_than_the_limit_add_nothing(tmp_path, local, capsys):
    rows = [pair("a"), pair("b", "same", "same"), {"prompt": "c", "chosen": "yes", "rejected": None}]
    path = write(tmp_path / "a.jsonl", rows)
    message = refused(capsys, path, "--store", local.uri)
    assert "2 of 3 rows are bad" in message
    assert "chosen equals rejected: 1 (first a.jsonl line 2)" in message
    assert local.list("tables") == []
    assert add(capsys, path, local, "--max-bad-fraction", "0.7")["new"] == 1


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (["nothing.jsonl"], ["no file or folder nothing.jsonl", "check the path"]),
        (["{prompts}"], ["prompts.jsonl line 1 cannot serve as preferences", "Rename the columns"]),
        (["{file}", "--max-bad-fraction", "2"], ["max_bad_fraction = 2.0 must be from 0 to 1"]),
        (["{file}", "--store", "/proc/nothing/here"], ["store file:///proc/nothing/here cannot be written"]),
        (["{file}", "--store", "s3://key:pass-0451@bucket/x"], ["store must not carry credentials"]),
        (["{cut}"], ["cut.jsonl line 2 is not JSON"]),
    ],
)
def test_what_is_typed_wrong_is_refused(tmp_path, capsys, arguments, pieces):
    names = {"prompts": write(tmp_path / "prompts.jsonl", [{"prompt": "a"}])}
    names |= {
        "file": write(tmp_path / "file.jsonl", [pair("a")]),
        "cut": write(tmp_path / "cut.jsonl", [pair("a"), "{"]),
    }
    store = tmp_path / "store"
    given = [argument.format(**names) for argument in arguments]
    message = refused(capsys, *(given if "--store" in given else [*given, "--store", store]))
    assert all(piece in message for piece in pieces), message
    assert "pass-0451" not in message
    assert not [path for path in store.rglob("*") if path.is_file()]


KILLED = """
import os, signal, sys
from flows.add_preferences import main

name, *arguments = sys.argv[1:]
dies = lambda event, values: event == "os.rename" and str(values[1]).endswith(name)
sys.addaudithook(lambda event, values: os.kill(os.getpid(), signal.SIGKILL) if dies(event, values) else None)
main(arguments)
"""


@pytest.mark.parametrize("killed_before", ["rows.parquet", "manifest.json"])
def test_an_addition_that_is_killed_is_none_and_can_be_repeated(tmp_path, local, capsys, killed_before):
    add(capsys, write(tmp_path / "first.jsonl", [pair("z")]), local)
    path = write(tmp_path / "a.jsonl", [pair("a"), pair("b")])
    child = start("-c", KILLED, killed_before, path, "--store", local.uri)
    output = child.communicate(timeout=120)[0]
    assert child.returncode == -9, output
    assert [row[0] for row in added(local)] == ["z"]
    assert add(capsys, path, local)["new"] == 2
    assert [row[0] for row in added(local)] == ["z", "a", "b"]


def test_the_server_gets_an_event_where_something_is_new(tmp_path, prefect_harness):
    store = Store(str(tmp_path / "store"))
    resource = f"rs-dpo.preferences.{hashlib.sha256(store.uri.encode()).hexdigest()[:12]}"
    path = write(tmp_path / "a.jsonl", [pair("a")])
    assert add_preferences(PreferenceSource(path=path), store=store.uri)["announced"]  # as a deployment runs it
    assert not add_preferences.fn(PreferenceSource(path=path), store=store.uri)["announced"]
    with get_client(sync_client=True) as client:
        wanted = {"resource": {"id": [resource]}}
        for _ in range(100):
            events = client.request("POST", "/events/filter", json={"filter": wanted}).json()["events"]
            if events:
                break
            time.sleep(0.1)
    assert [event["event"] for event in events] == ["preferences.added"]
    assert events[0]["payload"]["new"] == 1


def test_other_forms_are_added_too(tmp_path, store, capsys):
    row = {"prompt": "a", "response_0": "yes", "response_1": "no", "better_response_id": 0, "safer_response_id": 1}
    path = write(tmp_path / "a.jsonl", [row])
    assert "set it to better or safer" in refused(capsys, path, "--store", store.uri)
    assert add(capsys, path, store, "--dimension", "safer")["new"] == 1
    assert added(store) == [("a", "no", "yes", None)]
    with pytest.raises(ValueError, match=r"weight = 2 is for data\.preferences of a run"):
        add_preferences.fn(PreferenceSource(path=path, weight=2), store=store.uri)
