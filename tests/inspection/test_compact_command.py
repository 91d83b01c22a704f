"""python -m flows.store compact: what it merges and prints, and what it refuses."""

import json

import pytest
from small_stores import PROVENANCE, completions

from flows.store import main
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable

TABLE = f"tables/completions/{PROVENANCE.key}"


@pytest.fixture
def store(tmp_path) -> Store:
    found = Store(str(tmp_path / "store"))
    for name in "abcd":
        GrowingTable(found, "completions", PROVENANCE).append(name, completions(name))
    return found


def listed_rows(store: Store, capsys) -> list[int]:
    main([store.uri, "--json"])
    return [table["rows"] for table in json.loads(capsys.readouterr().out)["tables"]]


def test_small_parts_are_merged_and_their_rows_counted_once(store, capsys):
    before = listed_rows(store, capsys)
    main(["compact", store.uri])
    text = capsys.readouterr().out
    assert f"4 parts merged into 1  {TABLE}" in text
    assert "until `prune` finds nothing that does" in text
    assert listed_rows(store, capsys) == before == [16]
    main(["compact", store.uri])
    assert capsys.readouterr().out.strip() == "No table has several small parts."


def test_programs_get_json(store, capsys):
    main(["compact", store.uri, "--json"])
    assert json.loads(capsys.readouterr().out) == {"tables": [{"table": TABLE, "merged": 4, "into": 1}]}
    main(["compact", store.uri, "--json"])
    assert json.loads(capsys.readouterr().out) == {"tables": []}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["compact"], "the following arguments are required: store"), (["compact", "nowhere"], "there is no store at")],
)
def test_what_cannot_be_compacted_is_refused(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err
