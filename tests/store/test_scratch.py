import contextlib
import glob
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from runs import ROOT

from tasks.config.errors import ConfigurationError
from tasks.store.scratch import cache_folder, scratch_folder, without_patterns


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path))
    return tmp_path / "work" / socket.gethostname()


@contextlib.contextmanager
def another_process(pid: int | None = None) -> Iterator[tuple[subprocess.Popen, Path]]:
    """Run a process that holds a scratch folder, and may be taken for one of another id; give it and its folder."""
    script = "import os, pathlib, subprocess, sys, time\nfrom tasks.store.scratch import scratch_folder\n"
    script += f"os.getpid = lambda: {pid}\n" if pid else ""
    script += "with scratch_folder('train') as folder:\n (folder / 'file').touch()\n print(folder, flush=True)\n"
    script += " child = subprocess.Popen(['sleep', '60'])\n print(child.pid, flush=True)\n time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        folder, child = Path(process.stdout.readline().strip()), int(process.stdout.readline())
        try:
            yield process, folder
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)


def test_the_cache_is_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("RSDPO_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("RSDPO_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "rsdpo"


def test_a_cache_that_datasets_could_not_use_is_refused(monkeypatch):
    monkeypatch.setenv("RSDPO_CACHE", "/tmp/a::b")
    with pytest.raises(ConfigurationError, match="RSDPO_CACHE = /tmp/a::b must not have '::'"):
        cache_folder()


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


def test_one_name_twice_gives_two_folders(work):
    with scratch_folder("train") as one, scratch_folder("train") as other:
        assert one != other
        assert list(other.iterdir()) == []
        (one / "file").write_text("x")
    with scratch_folder("train") as again:
        assert list(again.iterdir()) == []


def test_threads_do_not_delete_each_others_folders(work):
    def use(number: int) -> bool:
        with scratch_folder("train") as folder:
            (folder / "file").write_text("x")
            time.sleep(0.01 * (number % 3))
            return (folder / "file").exists()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(40)))
    assert list(work.iterdir()) == []


def test_a_folder_without_a_lock_is_a_strangers_and_stays(work):
    (work / "train-1").mkdir(parents=True)
    with scratch_folder("train"):
        pass
    assert [path.name for path in work.iterdir()] == ["train-1"]


def test_two_names_do_not_disturb_each_other(work):
    with scratch_folder("policy") as outer, scratch_folder("reward") as inner:
        assert outer != inner
        (inner / "file").write_text("x")
        assert list(outer.iterdir()) == []


@pytest.mark.parametrize("pid", [None, os.getpid(), 2**22 + 1], ids=["its own", "mine", "of no process"])
def test_the_folder_of_a_process_goes_once_it_is_dead_whatever_its_id(work, pid):
    with another_process(pid) as (process, folder):
        for _ in range(2):
            with scratch_folder("train"):
                assert (folder / "file").exists(), "its process is alive"
        process.kill()  # its child lives on, and must not hold the lock
        process.wait()
        assert folder.exists()
        with scratch_folder("train") as mine:
            assert not folder.exists()
            assert [path for path in work.iterdir() if path.suffix != ".lock"] == [mine]
    assert list(work.iterdir()) == []


def test_a_lock_file_that_cannot_be_opened_is_anothers(work):
    with another_process() as (process, folder):
        process.kill()
        process.wait()
        lock = folder.with_name(f"{folder.name}.lock")
        lock.unlink()
        lock.mkdir()  # a stand-in for a file of another user: this test may run as root
        with scratch_folder("train"):
            assert folder.exists()


def test_a_path_that_a_library_would_expand_is_linked(tmp_path):
    for name in ("plain", "run[1]", "run*", "a?b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        with without_patterns(tmp_path / name) as folder:
            assert (folder / "file").read_text() == name
            assert (folder == tmp_path / name) == (name == "plain")
            assert glob.glob(f"{folder}/*") == [f"{folder}/file"]
        assert (tmp_path / name / "file").exists()
