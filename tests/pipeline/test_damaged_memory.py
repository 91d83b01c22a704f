"""What is remembered of checks, damaged: made again, never believed and never an error."""

import json
import os

import pytest

from tasks.pipeline import remembered as module
from tasks.pipeline.remembered import remembered


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Remember in a folder of this test's own."""
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path))
    return tmp_path / "checked"


def digest() -> str:
    return remembered(lambda: "a1b2c3", "digest", "model")


@pytest.mark.parametrize("old", [b"a1b2c3", b"value"])
def test_one_byte_that_is_another_is_not_believed(cache, old):
    assert digest() == "a1b2c3"
    (file,) = cache.iterdir()
    content = file.read_bytes()
    file.write_bytes(content.replace(old, bytes([old[0] ^ 1]) + old[1:]))
    assert file.read_bytes() != content
    assert digest() == "a1b2c3"
    assert file.read_bytes() == content


@pytest.mark.parametrize("said", [3, ["text"], [["text", "level"]], None])
def test_what_another_program_wrote_is_written_anew(cache, said):
    digest()
    (file,) = cache.iterdir()
    file.write_text(json.dumps({"value": "other", "said": said}))
    assert digest() == "a1b2c3"


def test_a_file_that_an_editor_has_open_is_no_code(tmp_path, monkeypatch):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "code.py").write_text("")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "room" / "remembered.py"))
    before = module._code.__wrapped__()
    os.symlink("somebody@host.1234", tmp_path / "room" / ".#code.py")  # Emacs' lock, which leads nowhere
    assert module._code.__wrapped__() == before
