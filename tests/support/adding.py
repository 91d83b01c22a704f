"""Adding prompts to a store: the command in this process and in one of its own."""

import json
import os
import subprocess
import sys

from runs import ROOT

from flows.add_prompts import main
from tasks.data.added_prompts import ADDED_PROMPTS, read_added_prompts
from tasks.data.tally import Tally


def write(path, texts):
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return str(path)


def add(capsys, *arguments):
    """Run the command in this process and return its last line."""
    main([*map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def added(store):
    """Return the texts that a reader gets, duplicates and all."""
    records = read_added_prompts(ADDED_PROMPTS.find(store), Tally("added", 0))
    return [record.messages[-1]["content"] for _, record in records]


def parts(store):
    return [part.uri.rsplit("/", 1)[1] for part in ADDED_PROMPTS.table(store).parts()]


def start(*arguments):
    """Start the command, or a script around it, as a person would: in a process that knows of no server."""
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, **streams)
