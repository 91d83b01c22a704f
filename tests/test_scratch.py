import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.scratch import cache_folder, scratch_folder


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path))
    return tmp_path / "work" / socket.gethostname()


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_the_cache_is_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("RSDPO_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "rsdpo"


def test_a_scratch_folder_is_empty_and_goes(work):
    with scratch_folder("train") as folder:
        assert folder.is_relative_to(work)
        assert list(folder.iterdir()) == []
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("x")
    assert list(work.iterdir()) == []


def test_a_scratch_folder_goes_after_an_error(work):
    def fail_in_the_middle() -> None:
        with scratch_folder("train") as folder:
            (folder / "file").write_text("x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_in_the_middle()
    assert list(work.iterdir()) == []


def test_what_an_earlier_use_left_is_not_seen(work):
    (work / f"train-{os.getpid()}").mkdir(parents=True)
    (work / f"train-{os.getpid()}" / "old").write_text("x")
    with scratch_folder("train") as folder:
        assert list(folder.iterdir()) == []


def test_folders_of_dead_processes_go_and_others_stay(work):
    dead, alive = work / f"train-{dead_process()}", work / f"a-b-{os.getppid()}"
    for folder in (dead, alive):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    with scratch_folder("train"):
        assert not dead.exists()
        assert (alive / "file").exists()
    assert [path.name for path in work.iterdir()] == [alive.name]


def test_two_names_do_not_disturb_each_other(work):
    with scratch_folder("policy") as outer, scratch_folder("reward") as inner:
        assert outer != inner
        (inner / "file").write_text("x")
        assert list(outer.iterdir()) == []


def test_the_folder_of_a_killed_process_goes(work):
    script = "import time\nfrom tasks.scratch import scratch_folder\nwith scratch_folder('train'): time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[1])
    try:
        left = work / f"train-{child.pid}"
        for _ in range(200):
            if left.exists():
                break
            time.sleep(0.05)
        assert left.exists()
        with scratch_folder("train"):
            assert left.exists(), "its process is alive"
    finally:
        child.kill()
        child.wait()
    assert left.exists()
    with scratch_folder("train"):
        assert not left.exists()
