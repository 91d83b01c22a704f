"""python -m flows.browse: what it serves, and one message where something is wrong."""

import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from browsed_store import Size, write_run
from runs import ROOT

from flows.browse import HOST, listen, main
from tasks.store.folders import Store


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_a_store_is_served_until_it_is_interrupted(tmp_path):
    store = Store(str(tmp_path / "store"))
    run, _ = write_run(store, Size(3))
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    command = [sys.executable, "-m", "flows.browse", str(tmp_path / "store"), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        url = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())[0]
        assert run.id in httpx.get(url, timeout=60).text
        assert httpx.get(f"{url}/runs/{run.id}", timeout=60).status_code == 200
        assert "server" not in httpx.get(url).headers
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=60)
    assert (out, err) == ("", ""), "no traceback"
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before, "nothing is written"


def test_only_this_machine_is_listened_to():
    with listen(0) as listener:
        assert listener.getsockname()[0] == HOST == "127.0.0.1"


def test_what_is_wrong_is_told_in_a_line(tmp_path, capsys):
    assert "there is no store at" in refused(capsys, str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    assert "must be a folder" in refused(capsys, "ftp://somewhere")
    assert "--port" in refused(capsys, str(tmp_path), "--port", "70000")
    assert "invalid int value" in refused(capsys, str(tmp_path), "--port", "many")
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        message = refused(capsys, str(tmp_path), "--port", str(taken.getsockname()[1]))
    assert "choose another with --port" in message
    assert len(message.splitlines()) == 1


def test_make_browse():
    done = subprocess.run(["make", "-n", "browse", "STORE=s3://b/p"], cwd=ROOT, capture_output=True, text=True)
    # A make within a make says which folder it enters and leaves.
    assert [line for line in done.stdout.splitlines() if line.endswith("-m flows.browse s3://b/p")]
