"""RLAIF and Constitutional AI on the completions of a run: the stages, and `python -m flows.revise`."""

import json
from collections.abc import Iterator

import pytest
import yaml
from judge_server import JudgeServer, asked_text, judging
from kept_store import kept_run, kept_store
from prefect import get_client

from flows.revise import main
from tasks.config.errors import ConfigurationError
from tasks.config.sections import DataSource
from tasks.data.tally import Tally, read_records
from tasks.inspection.sampled import Sampled, find_sampled
from tasks.judged_preferences import Pair, judge_preferences, preferred_rows
from tasks.pipeline import progress
from tasks.pipeline.site import Site
from tasks.store.folders import Store
from tasks.store.parquet import read_table

PRINCIPLES = ["It is short."]


def between(text: str, start: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


def prefer_short(request, number):
    a, b = (between(asked_text(request), f"[Start of answer {s}]\n", f"\n[End of answer {s}]") for s in "AB")
    return "[[C]]" if len(a) == len(b) else f"[[{'A' if len(a) < len(b) else 'B'}]]"


def shorten(request, number):
    answer = between(request["messages"][0]["content"], "[Start of the answer]\n", "\n[End of the answer]")
    return "Too long." if len(request["messages"]) == 1 else f"<answer>{answer[:5]}</answer>"


@pytest.fixture
def store(tmp_path) -> Store:
    store = kept_store(tmp_path / "store")
    kept_run(store)
    return store


@pytest.fixture
def sampled(store) -> Sampled:
    return find_sampled(store, f"{store.uri}/sample_completions/{store.list('sample_completions')[0]}")


def test_preferred_rows_are_what_was_decided():
    pairs = [Pair("p", [], text, "other") for text in "abcd"]
    rows = preferred_rows(pairs, [1.0, 0.0, 0.5, float("nan")])
    assert [(row["chosen"], row["rejected"], row["margin"]) for row in rows] == [
        ("a", "other", None),
        ("other", "b", None),
    ]


def test_a_judge_labels_completions_and_its_labels_are_found_again(prefect_harness, store, sampled):
    with judging(prefer_short) as server:
        judge = server.config()
        preferences = judge_preferences(Site(store), sampled.completions, sampled.prompts, judge)
        asked = len(server.requests)
        rows = read_table(preferences).to_pylist()
        assert rows
        assert all(len(row["chosen"]) < len(row["rejected"]) for row in rows)
        stats = preferences.stats
        assert stats["labelled"] == len(rows) == preferences.rows
        assert stats["judge"]["asked"] == asked == 2 * (stats["labelled"] + stats["ties"]) - stats["judge"]["cached"]
        assert judge_preferences(Site(store), sampled.completions, sampled.prompts, judge) == preferences
        assert len(server.requests) == asked


def test_a_judge_without_a_preference_is_an_error(prefect_harness, store, sampled):
    refused = pytest.raises(ConfigurationError, match=r"prefers neither of any two completions \(\d+ pairs")
    with judging(lambda request, number: "[[C]]") as server, refused:
        judge_preferences(Site(store), sampled.completions, sampled.prompts, server.config())


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judging(shorten) as server:
        yield server


def written(server: JudgeServer, folder, **fields) -> str:
    file = folder / "judge.yaml"
    file.write_text(yaml.safe_dump(server.config(principles=PRINCIPLES, **fields).model_dump(mode="json")))
    return str(file)


def test_revisions_are_pairs_and_demonstrations_that_a_run_can_read(
    prefect_harness, store, sampled, server, tmp_path, capsys
):
    main([written(server, tmp_path), sampled.completions.uri, "--store", store.uri, "--json"])
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(server.requests) == made["preferences"]["stats"]["judge"]["asked"] <= 2 * sampled.prompts.rows
    assert made["demonstrations"]["stats"]["judge"]["asked"] == 0
    pairs, demonstrations = (
        [record for _, record in read_records(DataSource(path=made[role]["uri"]), role, Tally(role, 0))]
        for role in ("preferences", "demonstrations")
    )
    assert len(demonstrations) == made["demonstrations"]["rows"]
    assert pairs
    assert all(pair.rejected.strip()[:5].startswith(pair.chosen) for pair in pairs)
    assert {pair.chosen for pair in pairs} <= {each.completion for each in demonstrations}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "principles=[]"], "judge.principles is empty"),
        (["--rounds", "0"], "rounds = 0 must be at least 1"),
        (["--set", "api_key_variable=NO_SUCH_KEY"], "needs the environment variable NO_SUCH_KEY"),
        (["--set", "seed=x"], "seed"),
    ],
)
def test_what_is_typed_wrong_in_revise_is_refused(
    prefect_harness, store, sampled, server, tmp_path, capsys, arguments, message
):
    with pytest.raises(SystemExit) as caught:
        main([written(server, tmp_path), sampled.completions.uri, "--store", store.uri, *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not server.requests


def test_completions_that_are_not_there(store, server, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([written(server, tmp_path), f"{store.uri}/sample_completions/{'0' * 64}", "--store", store.uri])
    assert "is no artifact of" in capsys.readouterr().err


def test_progress_is_shown_in_the_ui_while_a_judge_is_asked(prefect_harness, store, sampled, monkeypatch):
    """Prefect's client is called beside the event loop: within it, nothing would be sent."""
    monkeypatch.setattr(progress, "UI_SECONDS", 0.0)
    with judging(prefer_short) as server:
        judge_preferences(Site(store), sampled.completions, sampled.prompts, server.config(version="shown"))
    with get_client(sync_client=True) as client:
        shown = client.read_artifacts(limit=200)
    assert any("asking judge small-judge" in (artifact.description or "") for artifact in shown)
