"""The command as a person starts it: messages, exit codes, nothing left behind."""

import os
import subprocess
import sys

import pytest
from command_lines import PAIRS, files, overrides
from runs import ROOT


def run(folder, *arguments, **environment):
    """Run the command as a person would; return its exit code, standard output and standard error."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    clean |= {"PREFECT_HOME": str(folder / "prefect"), "RSDPO_CACHE": str(folder / "cache"), **environment}
    command = [sys.executable, "-m", "flows.rs_dpo", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def stopped(folder, *arguments, **environment):
    """Check that the command stops with one message and leaves nothing; return the message."""
    code, output, errors = run(folder, *arguments, **environment)
    assert code != 0
    assert "Traceback" not in output + errors
    assert errors.count("error:") == 1
    assert files(folder) == []
    return errors


@pytest.mark.parametrize(("reader", "code"), [(">&-", "0"), ("| true", "1")])
def test_command_whose_output_nobody_reads(folder, reader, code):
    script = f'{sys.executable} -m flows.rs_dpo "$0" --dry-run {reader}; echo "status ${{PIPESTATUS[0]}}" >&2'
    command = ["bash", "-c", script, str(folder / "run.yaml")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1] == f"status {code}"
    assert "Traceback" not in done.stderr
    assert "error:" not in done.stderr


def test_command_wrong_flag(folder):
    errors = stopped(folder, folder / "run.yaml", "--dryrun")
    assert "unrecognized arguments: --dryrun" in errors


def test_command_missing_configuration(folder):
    errors = stopped(folder, "configs/nothing.yaml")
    assert errors.splitlines()[-1].startswith("error: configuration file configs/nothing.yaml does not exist")


def test_command_bad_values(folder):
    arguments = overrides(pairs__eta=0.3, pairs__tau=0, sampling__k=1, dpo__beta=-0.1, data__prompts="nothing.jsonl")
    errors = stopped(folder, folder / "run.yaml", *arguments)
    for piece in ("pairs.eta = 0.3", "pairs.tau = 0", "sampling.k = 1", "dpo.beta = -0.1"):
        assert errors.count(piece) == 1


def test_command_missing_data_file(folder):
    errors = stopped(folder, folder / "run.yaml", *overrides(data__prompts="nothing.jsonl"))
    assert "there is no file or folder nothing.jsonl" in errors
    assert "check the path" in errors


def test_command_malformed_line(folder):
    with (folder / "pairs.jsonl").open("a") as file:
        file.write('{"prompt": "cut sh\n')
    errors = stopped(folder, folder / "run.yaml")
    assert f"pairs.jsonl line {len(PAIRS) + 1} is not JSON" in errors


def test_command_missing_bucket(folder, s3_server):
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "NO_PROXY")
    errors = stopped(
        folder,
        folder / "run.yaml",
        *overrides(store="s3://no-such-bucket/prefix"),
        **{name: os.environ[name] for name in names},
    )
    assert "store s3://no-such-bucket/prefix cannot be written" in errors
    assert "check the bucket" in errors
