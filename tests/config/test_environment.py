"""Folders that cannot be written: what is moved, and what stays."""

import logging
import os
from pathlib import Path

import pytest

from tasks.config.environment import FOLDERS, find_folders, pass_by_proxies, why_not_writable


@pytest.fixture
def places(tmp_path, monkeypatch) -> Path:
    """Set no variable of ours, and put temporary folders below `tmp_path`."""
    for name in (*FOLDERS, "PREFECT_PROFILES_PATH", "USER"):
        monkeypatch.setenv(name, "x")  # so that it is put back, whatever is set meanwhile
        monkeypatch.delenv(name)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path


def moved() -> dict[str, str]:
    return {name: os.environ[name] for name in FOLDERS if name in os.environ}


def test_a_home_that_can_be_written_stays(places, monkeypatch, caplog):
    monkeypatch.setenv("HOME", str(places / "home" / "new"))
    find_folders()
    assert (os.environ["HOME"], moved(), caplog.text) == (str(places / "home" / "new"), {}, "")


@pytest.mark.parametrize("home", ["/proc/nonexistent", "relative", "/dev/null"])
def test_without_a_home_there_is_a_temporary_one(places, monkeypatch, caplog, home):
    monkeypatch.setenv("HOME", home)
    find_folders()
    new = Path(os.environ["HOME"])
    assert (new, moved()) == (places / "tmp" / f"rs-dpo-{os.getuid()}", {})
    assert new.stat().st_mode & 0o077 == 0
    assert caplog.record_tuples == [("tasks.config.environment", logging.WARNING, caplog.messages[0])]
    assert home in caplog.messages[0]
    monkeypatch.setenv("HOME", home)
    find_folders()
    assert Path(os.environ["HOME"]) == new, "the next run finds its caches again"


def test_only_what_cannot_be_written_moves(places, monkeypatch, caplog):
    home = places / "home"
    (home / ".cache").mkdir(parents=True)
    (home / ".prefect").write_text("no folder")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RSDPO_CACHE", "/given")
    find_folders()
    assert moved() == {"RSDPO_CACHE": "/given", "PREFECT_HOME": f"{places}/tmp/rs-dpo-{os.getuid()}/.prefect"}
    assert os.environ["HOME"] == str(home), "credentials of the home folder hold"


def test_each_folder_moves_to_a_place_of_its_own(places, monkeypatch):
    home = places / "home"
    home.mkdir()
    (home / ".cache").write_text("no folder")
    (home / ".config").write_text("no folder")
    monkeypatch.setenv("HOME", str(home))
    find_folders()
    new = places / "tmp" / f"rs-dpo-{os.getuid()}"
    names = ("RSDPO_CACHE", "HF_HOME", "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT")
    assert moved() == {name: str(new / FOLDERS[name]) for name in names}


def test_a_folder_that_a_stranger_laid_is_not_used(places, monkeypatch):
    (places / "tmp" / f"rs-dpo-{os.getuid()}").symlink_to(places)
    monkeypatch.setenv("HOME", "/proc/nonexistent")
    find_folders()
    assert Path(os.environ["HOME"]).parent == places / "tmp"
    assert not Path(os.environ["HOME"]).is_symlink()


def test_what_keeps_a_folder_from_being_written_is_told(tmp_path):
    assert why_not_writable(tmp_path / "a" / "b") == ""
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert "NotADirectoryError" in why_not_writable(tmp_path / "file" / "x")
    assert "FileNotFoundError" in why_not_writable(Path("/proc/x"))


PROXY = {"HTTP_PROXY": "http://proxy:3128"}


@pytest.mark.parametrize(
    ("given", "excepted"),
    [
        ({}, None),
        (PROXY, "127.0.0.1,localhost"),
        ({"https_proxy": "http://proxy:3128"}, "127.0.0.1,localhost"),
        ({**PROXY, "NO_PROXY": "s3.corp,localhost"}, "127.0.0.1,s3.corp,localhost"),
        ({**PROXY, "NO_PROXY": "a", "no_proxy": "b"}, "127.0.0.1,localhost,b"),
        ({**PROXY, "no_proxy": "*"}, "*"),
    ],
)
def test_connections_to_this_machine_pass_a_proxy_by(monkeypatch, given, excepted):
    names = [name for name in os.environ if name.lower().endswith("_proxy")]
    for name in (*names, "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        pass_by_proxies()
        assert os.environ.get("no_proxy") == excepted
