"""Additions that are killed, and two at once."""

import json

import pytest
from adding import add, added, parts, start, write

from tasks.data.added_prompts import ADDED_PROMPTS
from tasks.store.folders import Store

pytestmark = pytest.mark.usefixtures("server")

# Before a file of this name appears in the store, the process dies, or waits for the other one.
HOOKED = """
import os, signal, sys, time
from pathlib import Path
from flows.add_prompts import main

name, flags, *arguments = sys.argv[1:]


def meet():
    Path(flags, str(os.getpid())).touch()
    for _ in range(600):
        if len(os.listdir(flags)) == 2:
            return
        time.sleep(0.1)
    raise SystemExit("the other process did not come")


def hook(event, values):
    if event == "os.rename" and str(values[1]).endswith(name):
        meet() if os.path.isdir(flags) else os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(hook)
main(arguments)
"""


@pytest.mark.parametrize("killed_before", ["rows.parquet", "manifest.json"])
def test_an_addition_that_is_killed_is_none_and_can_be_repeated(tmp_path, capsys, killed_before):
    store, path = Store(str(tmp_path / "store")), write(tmp_path / "a.jsonl", ["a", "b"])
    add(capsys, write(tmp_path / "first.jsonl", ["z"]), "--store", store.uri)
    child = start("-c", HOOKED, killed_before, "/no/flags", path, "--store", store.uri)
    output = child.communicate()[0]
    assert child.returncode == -9, output
    assert added(store) == ["z"]
    assert add(capsys, path, "--store", store.uri)["new"] == 2
    assert added(store) == ["z", "a", "b"]
    assert len(parts(store)) == 2


@pytest.mark.parametrize("other", [range(6), range(3, 9)], ids=["the same", "overlapping"])
def test_two_additions_at_once(tmp_path, other):
    store, flags = Store(str(tmp_path / "store")), tmp_path / "flags"
    flags.mkdir()
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    files = [write(here / "a.jsonl", map(str, range(6))), write(there / "a.jsonl", map(str, other))]
    children = [start("-c", HOOKED, "rows.parquet", flags, path, "--store", store.uri, "--json") for path in files]
    outputs = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    # Neither saw what the other one added.
    assert [json.loads(output.splitlines()[-1])["new"] for output in outputs] == [6, 6]
    assert len(parts(store)) == (1 if other == range(6) else 2)
    assert set(added(store)) == {str(n) for n in {*range(6), *other}}
    assert ADDED_PROMPTS.append(store, ADDED_PROMPTS.lay_out([])) == 0
