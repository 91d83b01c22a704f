"""Checks that passed before: made again only where something that decides them is another."""

import pytest

from tasks.config.errors import ConfigurationError
from tasks.config.settings import ScoringConfig
from tasks.pipeline import remembered as module
from tasks.pipeline.progress import log
from tasks.pipeline.remembered import remembered, unless_passed
from tasks.store.artifacts import Artifact

CALLS = []


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Remember in a folder of this test's own."""
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path))
    CALLS.clear()
    return tmp_path / "checked"


def model(digest="a1", **stats):
    return Artifact(kind="model", uri=f"file:///anywhere/{len(CALLS)}", digest=digest, stats=stats)


def fits(artifact, settings):
    """Pass, and say something, unless the model is called bad."""
    CALLS.append(artifact.digest)
    log(f"{artifact.digest} has a tail")
    if artifact.digest == "bad":
        raise ConfigurationError("it is bad")


def test_a_check_that_passed_is_not_made_again_wherever_the_model_lies(capsys):
    for _ in range(3):
        unless_passed(fits, model(), ScoringConfig())
    assert CALLS == ["a1"]
    assert capsys.readouterr().out == 3 * "a1 has a tail\n", "what it said is said again"


@pytest.mark.parametrize(
    ("artifact", "settings"),
    [(model("b2"), ScoringConfig()), (model(), ScoringConfig(dtype="bfloat16")), (model(step=1), ScoringConfig())],
    ids=["content", "settings", "stats"],
)
def test_it_is_made_again_for_anything_else(artifact, settings):
    unless_passed(fits, model(), ScoringConfig())
    unless_passed(fits, artifact, settings)
    assert len(CALLS) == 2


@pytest.mark.parametrize("what", ["_code", "_packages"])
def test_it_is_made_again_with_other_code_or_packages(monkeypatch, what):
    unless_passed(fits, model(), ScoringConfig())
    monkeypatch.setattr(module, what, lambda: "others")
    unless_passed(fits, model(), ScoringConfig())
    assert len(CALLS) == 2


def test_a_check_that_fails_is_made_each_time():
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="it is bad"):
            unless_passed(fits, model("bad"), ScoringConfig())
    assert CALLS == ["bad", "bad"]


@pytest.mark.parametrize("artifact", [model(""), model(trust_remote_code=True)], ids=["foreseen", "own code"])
def test_what_no_digest_decides_is_checked_each_time(artifact):
    for _ in range(2):
        unless_passed(fits, artifact, ScoringConfig())
    assert len(CALLS) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"value": null}', b"\xff"])
def test_a_damaged_file_is_made_again(cache, damage):
    unless_passed(fits, model(), ScoringConfig())
    (file,) = cache.iterdir()
    good = file.read_bytes()
    file.write_bytes(damage)
    unless_passed(fits, model(), ScoringConfig())
    assert len(CALLS) == 2
    assert file.read_bytes() == good
    assert list(cache.iterdir()) == [file]


def test_a_cache_that_cannot_be_written_forgets(cache):
    cache.write_text("a file in the place of the folder")
    for _ in range(2):
        unless_passed(fits, model(), ScoringConfig())
    assert len(CALLS) == 2


def test_values_are_remembered_by_name():
    assert remembered(lambda: [1, "a"], "one", {"x": 1}) == [1, "a"]
    assert remembered(lambda: "never asked", "one", {"x": 1}) == [1, "a"]
    assert remembered(lambda: 2, "other", {"x": 1}) == 2
