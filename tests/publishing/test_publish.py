"""python -m flows.publish, against a server that answers as the hub does."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fake_hub import COMMIT, READS, WRITES
from kept_store import kept_run
from peft import PeftModel
from runs import ROOT, SUPPORT
from s3_servers import serving
from transformers import AutoModelForCausalLM, AutoTokenizer

import tasks.publishing.files
from flows.publish import main
from tasks.publishing.facts import gather
from tasks.publishing.files import file_contents
from tasks.store.copies import fetch
from tasks.store.runs import process_of

MODEL = ["chat_template.jinja", "config.json", "generation_config.json", "model.safetensors"]
MODEL += ["tokenizer.json", "tokenizer_config.json"]
OF_ADAPTER = ["README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja"]
OF_ADAPTER += ["tokenizer.json", "tokenizer_config.json"]


@pytest.fixture
def hub(tmp_path) -> Iterator[tuple[str, Path]]:
    """Return the address of a hub, and the folder that holds its repositories."""
    (tmp_path / "hub").mkdir()
    program = [sys.executable, str(SUPPORT / "fake_hub.py"), str(tmp_path / "hub")]
    with serving(program, r"Serving (http://127\.0\.0\.1:\d+)") as url:
        yield url, tmp_path / "hub"


def published(store, *arguments, url="http://127.0.0.1:9", token=WRITES, **environment):
    """Publish as a person would; return exit status, what is printed, and the message."""
    given = {"HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", **environment}
    command = [sys.executable, "-m", "flows.publish", store.uri, *arguments]
    environment = {**os.environ, "HF_HOME": str(Path(store.root).parent / "home"), **given}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def refused(capsys, *arguments):
    """Return the message of what must be refused."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    return capsys.readouterr().err


# What is sent


def test_the_model_is_published_whole(hub, kept):
    (url, repos), (store, run) = hub, kept
    status, text, errors = published(store, "last", "acme/aligned", url=url)
    assert (status, errors) == (0, "")
    assert text.splitlines()[-1] == f"published: {url}/acme/aligned/commit/{COMMIT}"
    assert (repos / "acme/aligned.visibility").read_text() == "private"
    assert (repos / "acme/aligned.commits").read_text() == f"RS-DPO run {run.id}\n"  # one commit
    repo, model = repos / "acme/aligned", fetch(store.find(run.artifacts["aligned"]))
    assert sorted(path.name for path in repo.iterdir()) == sorted([*MODEL, "README.md"])
    for name in MODEL:
        assert (repo / name).read_bytes() == (model / name).read_bytes()
    assert "vllm serve acme/aligned" in (repo / "README.md").read_text()
    assert AutoModelForCausalLM.from_pretrained(repo).num_parameters() > 0
    assert "user" in AutoTokenizer.from_pretrained(repo).chat_template


def test_the_adapter_alone(hub, kept):
    (url, repos), (store, run) = hub, kept
    status, text, _ = published(store, run.id[:20], "aligned", "--adapter", "--public", "--json", url=url)
    assert status == 0
    report = json.loads(text)
    assert {name: report[name] for name in ("run", "private")} == {"run": run.id, "private": False}
    repo = repos / "me/aligned"
    assert sorted(report["files"]) == sorted(path.name for path in repo.iterdir()) == OF_ADAPTER
    assert report["files"] == {path.name: path.stat().st_size for path in repo.iterdir()}
    assert (repos / "me/aligned.visibility").read_text() == "public"
    policy = AutoModelForCausalLM.from_pretrained(fetch(store.find(run.artifacts["policy"])))
    assert PeftModel.from_pretrained(policy, repo).peft_config["default"].r == 2


def test_an_adapter_names_its_base_where_the_hub_has_it(kept, monkeypatch):
    facts = gather(*kept)
    (base,) = facts.sources.values()
    digest = facts.made["policy"].digest
    config = yaml.safe_load(file_contents(kept[0], facts, "acme/aligned", adapter=True)["adapter_config.json"])
    assert config["base_model_name_or_path"] == digest
    source = {**base.provenance.config["source"], "path": "acme/tiny"}
    provenance = base.provenance.model_copy(update={"config": {"source": source}})
    ready = base.model_copy(update={"provenance": provenance, "stats": {"commit": COMMIT}})
    facts = facts._replace(made={**facts.made, "policy": ready}, sources={ready.digest: ready})
    config = yaml.safe_load(file_contents(kept[0], facts, "acme/aligned", adapter=True)["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == ("acme/tiny", COMMIT)


def test_what_a_dry_run_prints(kept, capsys):
    """Neither a token nor a network is needed."""
    store, run = kept
    main([store.uri, "last", "acme/aligned", "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[:-1]] == sorted([*MODEL, "README.md"])
    assert lines[-1] == f"would publish 7 files, {lines[-1].split(', ')[1]}, of run {run.id} to acme/aligned (private)"
    main([store.uri, "last", "acme/aligned", "--dry-run", "--json", "--public"])
    report = json.loads(capsys.readouterr().out)
    assert (report["commit"], report["private"], len(report["files"])) == (None, False, 7)


# What is refused, and what may fail


def test_visibility_of_a_repository_that_was_there(hub, kept):
    (url, repos), (store, _) = hub, kept
    (repos / "acme/aligned").mkdir(parents=True)
    for found, arguments, remedy in [("public", [], "give --public"), ("private", ["--public"], "leave --public out")]:
        (repos / "acme/aligned.visibility").write_text(found)
        status, _, errors = published(store, "last", "acme/aligned", *arguments, url=url)
        assert (status, errors) == (2, f"error: acme/aligned exists and is {found}: {remedy}, or take another name\n")
    assert list((repos / "acme/aligned").iterdir()) == []


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "error: no token for the hub: run `hf auth login`, or set HF_TOKEN to one that may write\n"),
        (READS, "error: the hub refused (403): the token must be valid and may write to acme/aligned; "),
        ("hf_unknown", "error: the hub refused (401): the token must be valid and may write to acme/aligned; "),
    ],
)
def test_tokens(hub, kept, token, message):
    status, _, errors = published(kept[0], "last", "acme/aligned", url=hub[0], token=token)
    assert status == 2
    assert errors.startswith(message)
    assert not token or token not in errors


def test_a_hub_that_is_not_there(kept):
    status, _, errors = published(kept[0], "last", "acme/aligned")
    assert status == 1
    assert errors.startswith("error: the hub at http://127.0.0.1:9 cannot be reached (ConnectError): check the network")
    status, _, errors = published(kept[0], "last", "acme/aligned", HF_HUB_OFFLINE="1")
    assert (status, errors) == (2, "error: HF_HUB_OFFLINE is set, so nothing is sent: unset it to publish\n")


def test_damage_is_found_before_anything_is_sent(hub, kept, damage):
    (url, repos), (store, run) = hub, kept
    (weights,) = Path(store.root).glob(f"{run.artifacts['aligned']}/*/model.safetensors")
    damage(f"file://{weights}", "flip")
    status, _, errors = published(store, "last", "acme/aligned", url=url)
    assert status == 1
    assert "model.safetensors does not match the hash in its manifest" in errors
    assert list(repos.iterdir()) == []


@pytest.mark.parametrize("repo", ["a/b/c", "a b", "-a/b", "a..b", ""])
def test_what_is_no_repository(kept, capsys, repo):
    message = refused(capsys, kept[0].uri, "last", "--dry-run", "--", repo)
    assert message.startswith(f"error: {repo!r} is no name of a repository, such as owner/name: ")


def test_runs_that_cannot_be_published(kept, capsys, tmp_path):
    store, run = kept
    missing = f"file://{tmp_path}/missing"
    assert f"{missing} has no finished run: check the path" in refused(capsys, missing, "last", "a/b")
    assert "no run begins with 'abc'" in refused(capsys, store.uri, "abc", "a/b")
    halfway = kept_run(store, status="running", artifacts={})
    assert f"run {halfway.id} is under way: only a finished run" in refused(capsys, store.uri, halfway.id, "a/b")
    dead = kept_run(store, status="running", artifacts={}, process=f"{process_of(os.getpid())} gone")
    assert f"run {dead.id} was interrupted: only a" in refused(capsys, store.uri, dead.id, "a/b")
    online = kept_run(store, artifacts={"aligned": run.artifacts["aligned"]})
    assert f"run {online.id} was aligned by RLOO, for which" in refused(capsys, store.uri, online.id, "a/b")
    kept_run(store, artifacts={"comparison": run.artifacts["pairs"]})  # of a command that makes no model
    assert f"run {online.id} was aligned by RLOO, for which" in refused(capsys, store.uri, "last", "a/b")
    other = kept_run(store, artifacts={"pairs": run.artifacts["pairs"]})
    assert f"run {other.id} has no aligned model, but pairs: choose" in refused(capsys, store.uri, "last", "a/b")


def test_which_run_is_not_guessed(kept, capsys, damage):
    store, run = kept
    assert "the run is empty: give the beginning" in refused(capsys, store.uri, "", "a/b", "--dry-run")
    newer = kept_run(store, artifacts=run.artifacts)
    damage(f"{store.uri}/runs/{newer.id}/manifest.json", "truncate")
    message = refused(capsys, store.uri, "last", "a/b", "--dry-run")
    assert f"runs/{newer.id} is damaged, and may be the last run: give a run's id" in message
    assert kept_run(store, artifacts=run.artifacts).id > newer.id
    main([store.uri, "last", "a/b", "--dry-run"])


def test_no_adapter(kept, capsys, monkeypatch):
    monkeypatch.setattr(tasks.publishing.files, "ADAPTER", "missing")
    message = refused(capsys, kept[0].uri, "last", "a/b", "--adapter", "--dry-run")
    assert message == "error: this run trained all weights (dpo.lora is not set), so there is no adapter alone\n"
