"""The event that an addition of prompts sends, with and without a server."""

import hashlib
import json
import time

import pytest
from adding import add, added, start, write
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.add_prompts import add_prompts, main
from tasks.config.sections import DataSource
from tasks.store.folders import Store

pytestmark = pytest.mark.usefixtures("server")


def test_the_command_needs_and_starts_no_server(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    path, store = write(tmp_path / "a.jsonl", ["a", "b"]), tmp_path / "store"
    child = start("-m", "flows.add_prompts", path, "--store", store, "--json")
    output = child.communicate(timeout=120)[0]
    assert child.returncode == 0, output
    report = json.loads(output.splitlines()[-1])
    assert (report["new"], report["announced"]) == (2, False)
    assert "PREFECT_API_URL is not set" in output
    assert "temporary server" not in output
    assert not list(tmp_path.rglob("prefect.db"))


def test_a_server_that_is_down_loses_the_event_but_no_prompts(tmp_path, capsys):
    store = Store(str(tmp_path / "store"))
    with temporary_settings({PREFECT_API_URL: "http://name:pass-0451@127.0.0.1:9/api"}):
        main([write(tmp_path / "a.jsonl", ["a", "b"]), "--store", store.uri])
    output = capsys.readouterr().out
    assert "the server did not take it (ConnectError): check PREFECT_API_URL" in output
    assert "pass-0451" not in output
    assert added(store) == ["a", "b"]


def test_the_server_gets_an_event_where_something_is_new(tmp_path, capsys, prefect_harness):
    store = Store(str(tmp_path / "store"))
    resource = f"rs-dpo.prompts.{hashlib.sha256(store.uri.encode()).hexdigest()[:12]}"
    a, b = write(tmp_path / "a.jsonl", ["a", "b"]), write(tmp_path / "b.jsonl", ["b", "c"])
    assert add_prompts(DataSource(path=a), store=store.uri)["announced"]  # as a deployment runs it
    assert not add(capsys, a, "--store", store.uri)["announced"]
    assert add(capsys, b, "--store", store.uri)["announced"]
    events = wait_for_events(resource, 2)
    assert [event["payload"]["new"] for event in events] == [1, 2]
    assert events[0]["event"] == "prompts.added"
    assert events[0]["resource"]["prefect.resource.name"] == store.uri
    assert events[0]["payload"] == {"read": 2, "new": 1, "known": 1, "duplicate": 0, "bad": {}, "store": store.uri}


def wait_for_events(resource, number):
    """Return the events about a resource, newest first, once the server has stored so many."""
    with get_client(sync_client=True) as client:
        for _ in range(300):
            wanted = {"resource": {"id": [resource]}}
            events = client.request("POST", "/events/filter", json={"filter": wanted}).json()["events"]
            if len(events) >= number:
                return events
            time.sleep(0.1)
    raise AssertionError(f"{len(events)} events came, {number} were expected")
