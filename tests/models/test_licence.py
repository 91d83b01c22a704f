"""The licence that is found beside a model, and which commit of the hub it is."""

from pathlib import Path

import pytest
from imports import stored
from runs import ROOT

from tasks.models.licence import card_facts, find_licence, hub_commit
from tasks.store.folders import Store
from tasks.store.manifests import read_files


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# M", {"license": "apache-2.0"}),
        ("---\r\nlicense: mit\r\n---\r\n", {"license": "mit"}),
        (
            "---\nlicense: other\nlicense_name: acme-1\nlicense_link: https://acme.example\n---",
            {"license": "other", "license_name": "acme-1", "license_link": "https://acme.example"},
        ),
    ],
)
def test_a_card_says_it(tmp_path, card, licence):
    (tmp_path / "README.md").write_bytes(card.encode())
    (tmp_path / "LICENSE").write_text("something else")
    assert find_licence(tmp_path) == {**licence, "file": "README.md"}


@pytest.mark.parametrize(
    "card", ["# No head", "---\nlicense: [\n---\n", "---\n- a\n---\n", "---\ntags: [a]\n---\n", "\xff"]
)
def test_a_card_that_says_nothing(tmp_path, card):
    (tmp_path / "README.md").write_bytes(card.encode("latin-1"))
    assert find_licence(tmp_path) == {}
    assert card_facts(tmp_path / "missing.md") == {}


def test_a_licence_is_known_by_its_text(tmp_path):
    (tmp_path / "LICENSE.txt").write_bytes((ROOT / "LICENSE").read_bytes())
    assert find_licence(tmp_path) == {"license": "apache-2.0", "file": "LICENSE.txt"}
    (tmp_path / "LICENSE.txt").write_text("You may use it on Sundays.")
    assert find_licence(tmp_path) == {"license": "other", "file": "LICENSE.txt"}


def test_a_commit_of_the_hub():
    commit = "0123456789" * 4
    assert hub_commit(Path(f"/cache/hub/models--acme--tiny/snapshots/{commit}")) == commit
    assert hub_commit(Path(f"/models/acme/tiny/{commit}")) is None


def test_what_comes_into_the_store_says_it(model, tmp_path):
    """The card itself stays outside: the model is what it was."""
    plain = stored(model, Store(str(tmp_path / "plain")))
    assert plain.stats["licence"] == {"license": "mit", "file": "LICENSE"}
    assert "commit" not in plain.stats
    snapshot = tmp_path / "models--acme--tiny/snapshots" / ("0123456789" * 4)
    snapshot.parent.mkdir(parents=True)
    model.rename(snapshot)
    (snapshot / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    found = stored(snapshot, Store(str(tmp_path / "told")))
    assert found.stats["licence"] == {"license": "apache-2.0", "file": "README.md"}
    assert found.stats["commit"] == "0123456789" * 4
    assert found.digest == plain.digest
    assert "README.md" not in read_files(found)
