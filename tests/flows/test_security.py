"""Secrets go nowhere, nobody's pickle is run, and no configuration or data names a place of its own choice."""

import ast
import base64
import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import runs
from dispatched import Behaviour, train_sft
from prefect import flow
from runs import ROOT, SUPPORT, on_small_world
from s3_servers import rclone, used_by_s3fs

from tasks.config.sections import DataSource
from tasks.data.added_prompts import ADDED_PROMPTS
from tasks.data.tally import Tally, read_records
from tasks.examples.world import write_world
from tasks.pipeline.jobs import die_with_parent
from tasks.pipeline.site import Site
from tasks.prompts import collect_prompts
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store

S3_SECRET, REFUSED_SECRET = "plantedS3/secret+0451", "planted-refused-0451"
HUB_TOKEN, API_AUTH = "hf_planted0451planted", "admin:planted-password-0451"
SOURCE = Artifact(kind="number", uri="file:///anywhere", digest="5" * 64, rows=5)

# Secrets

PIPELINE = """
import os, sys
from contextlib import suppress
from prefect import flow
from flows.add_prompts import add_prompts
from dispatched import Behaviour, train_sft
from tasks.store.artifacts import Artifact
from tasks.config.compute import ComputeConfig
from tasks.config.sections import DataSource
from tasks.pipeline.site import open_site

store, prompts, source, refused = sys.argv[1:]

@flow(name="pipeline")
def pipeline(store: str, source: Artifact, behaviour: Behaviour) -> dict[str, Artifact]:
    site = open_site(store, ComputeConfig())
    return site.finish({"number": train_sft(site, source, behaviour)})

source = Artifact.model_validate_json(source)
pipeline(store, source, Behaviour())
assert add_prompts(DataSource(path=prompts), store)["announced"]
with suppress(ValueError):
    pipeline(store, source, Behaviour(fails="tau = -0451"))
os.environ["AWS_SECRET_ACCESS_KEY"] = refused
pipeline(store, source, Behaviour(sleeps=0.5))
"""


@contextmanager
def prefect_server(folder: Path) -> Iterator[str]:
    """Run Prefect's server, which asks for a password, over a database in the folder; yield the URL of its API."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)
    try:
        for _ in range(1200):
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        server.terminate()
        server.wait(60)


@contextmanager
def secrets_everywhere(folder: Path) -> Iterator[str]:
    """Give every secret to this process and its children, and keep all that they write in the folder; yield a store."""
    (folder / "s3/bucket").mkdir(parents=True)
    variables = {
        "HF_TOKEN": HUB_TOKEN,
        "PREFECT_API_AUTH_STRING": API_AUTH,
        "PREFECT_SERVER_API_AUTH_STRING": API_AUTH,
        "HOME": str(folder / "home"),  # where Prefect keeps what a failed run raised, whatever its own home
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "RSDPO_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(SUPPORT),
    }
    with (
        rclone(folder / "s3", password=S3_SECRET) as url,
        used_by_s3fs(url),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET)
        for name, value in variables.items():
            patch.setenv(name, value)
        with prefect_server(folder) as api:
            patch.setenv("PREFECT_API_URL", api)
            yield "s3://bucket/store"


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all that was written by a stage, an addition of prompts, and two runs that failed."""
    folder = tmp_path_factory.mktemp("traces")
    (folder / "prompts.jsonl").write_text('{"prompt": "Hello?"}\n')
    with secrets_everywhere(folder) as store, (folder / "pipeline.log").open("wb") as log:
        arguments = [store, str(folder / "prompts.jsonl"), SOURCE.model_dump_json(), REFUSED_SECRET]
        command = [sys.executable, "-c", PIPELINE, *arguments]
        assert subprocess.run(command, stdout=log, stderr=log, cwd=ROOT, timeout=300).returncode == 1
        count = f"{os.environ['PREFECT_API_URL']}/flow_runs/count"
        assert httpx.post(count, json={}).status_code == 401, "the password was not needed"
    return folder


def holds(path: Path, text: str) -> bool:
    """Tell whether a file holds a text, as it is or as URLs, JSON and headers write it."""
    content = path.read_bytes()
    forms = (text, quote(text), quote(text, safe=""), json.dumps(text)[1:-1], base64.b64encode(text.encode()).decode())
    return any(form.encode() in content for form in forms)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


SECRETS = [S3_SECRET, REFUSED_SECRET, HUB_TOKEN, API_AUTH, API_AUTH.partition(":")[2]]


def test_what_failed_is_told_everywhere(traces):
    # What the next test looks for would be found where it was.
    told = {path.name for path in files(traces) if holds(path, "tau = -0451")}
    assert {"pipeline.log"} < told, told
    database = [path for path in files(traces / "prefect") if path.name.startswith("prefect.db")]
    for text in ("tau = -0451", "s3://bucket/store", "prompts.added", "AWS_SECRET_ACCESS_KEY still hold"):
        assert any(holds(path, text) for path in database), text


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_is_written(secret, traces):
    assert [str(path) for path in files(traces) if holds(path, secret)] == []


def is_pickle(path: Path) -> bool:
    """Tell whether a file is a pickle, bare or in base64, or a result of Prefect that names the pickle serializer."""
    content = path.read_bytes()
    return content.startswith((pickle.PROTO, b"gAS", b"gAW")) or b'"type":"pickle"' in content.replace(b" ", b"")


def test_no_pickle_is_written(traces, tmp_path):
    (tmp_path / "bare").write_bytes(pickle.dumps(ValueError()))
    (tmp_path / "text").write_bytes(base64.b64encode(pickle.dumps(ValueError())))
    assert [is_pickle(path) for path in files(tmp_path)] == [True, True]
    kept = [path for path in files(traces) if path.parent.name in ("results", "storage")]
    assert any(holds(path, "tau = -0451") for path in kept), "what a failed run raised is kept elsewhere"
    assert [str(path) for path in files(traces) if is_pickle(path)] == []


def test_every_process_persists_results_as_json():
    code = "import flows, prefect.settings as s; print(s.get_current_settings().results.default_serializer)"
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_RESULTS_DEFAULT_SERIALIZER"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.stdout.strip() == "json", done.stderr


@pytest.mark.slow
def test_a_whole_run_writes_no_secret_and_no_pickle(tmp_path):
    write_world(tmp_path / "world", seed=0, scale=0.1)
    with (
        secrets_everywhere(tmp_path) as store,
        runs.started(tmp_path, "quickstart.yaml", **on_small_world(tmp_path / "world", store)) as process,
    ):
        assert process.wait(900) == 0, (tmp_path / "stderr").read_text()[-3000:]
    assert [(str(path), secret) for path in files(tmp_path) for secret in SECRETS if holds(path, secret)] == []
    assert [str(path) for path in files(tmp_path) if is_pickle(path)] == []


# Pickles

FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"torch.load", "yaml.load", "pd.read_pickle", "eval", "exec"}


def test_our_code_reads_no_pickle_and_runs_no_text():
    modules = [path for name in ("flows", "tasks", "infra") for path in (ROOT / name).rglob("*.py")]
    assert len(modules) > 30
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {getattr(node, "module", None) or "", *(alias.name for alias in node.names)}
                assert not {name.partition(".")[0] for name in names} & FORBIDDEN_MODULES, (path, names)
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in FORBIDDEN_CALLS, (path, node.lineno)
                assert "allow_pickle" not in [keyword.arg for keyword in node.keywords], (path, node.lineno)


class Planted:
    """Unpickled, creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.mark,)


def test_a_pickle_among_the_results_in_a_store_is_not_run(prefect_harness, tmp_path):
    mark, site = tmp_path / "mark", Site(Store(str(tmp_path / "store")))
    pickle.loads(pickle.dumps(Planted(mark)))
    mark.rmdir()  # it works
    pipeline = flow(lambda: train_sft(site, SOURCE, Behaviour()), name="pipeline")
    made = pipeline()
    result = tmp_path / "store/results" / made.uri.rpartition("/")[2]  # named by the stage's key
    metadata = {"storage_key": str(result), "serializer": {"type": "pickle"}, "prefect_version": "3.7.6"}
    planted = base64.b64encode(pickle.dumps(Planted(mark))).decode()
    result.parent.mkdir(exist_ok=True)
    result.write_text(json.dumps({"metadata": metadata, "result": planted}))
    assert pipeline() == made
    assert not mark.exists()


# Ids and places


HOSTILE = ["../../outside", "/outside", "file:///outside", "s3://other/outside", "a\x00b", "x" * 5000, ""]


def test_prompt_ids_are_ours_whatever_a_file_says(tmp_path):
    rows = [
        {"prompt_id": name, "prompt": f"Question {number}?", "source": name, "metadata": {"prompt_id": name}}
        for number, name in enumerate(HOSTILE)
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source, tally = DataSource(path=str(tmp_path / "prompts.jsonl")), Tally("prompts.jsonl", 0.0)
    found = ADDED_PROMPTS.lay_out(collect_prompts(read_records(source, "prompts", tally), tally))
    ids = found["prompt_id"].to_pylist()
    assert len(ids) == len(HOSTILE)
    assert all(len(prompt_id) == 64 and set(prompt_id) <= set("0123456789abcdef") for prompt_id in ids)
    store = Store(str(tmp_path / "store"))
    ADDED_PROMPTS.append(store, found)
    assert ADDED_PROMPTS.find(store).rows == len(HOSTILE)
    assert {path.relative_to(tmp_path).parts[0] for path in files(tmp_path)} == {"prompts.jsonl", "store"}
    (part,) = ADDED_PROMPTS.table(store).parts()
    assert part.uri.startswith(f"{store.uri}/tables/prompts/")
