"""prefect.yaml: every deployment names a flow that exists, with the parameters of its configuration file."""

import asyncio
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import get_client
from prefect.deployments.steps.core import run_steps
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
from prefect.utilities.schema_tools import validate
from prefect.utilities.templating import apply_values
from runs import ROOT

from flows.config_files import load_config
from flows.deployed import read_configuration
from infra.apply import CPU_POOL, GPU_POOL, QUEUES, apply
from tasks.config.compute import GPU_STAGES
from tasks.pipeline.configuration import Config

PIPELINES = {
    "rs-dpo/scheduled": "deployed",
    "rs-dpo/new-prompts": "deployed",
    "rs-dpo/stories": "stories",
    "rs-dpo/hh": "hh",
}
"""Deployments of the pipeline and the configuration files that they are held against."""


def flow_of(deployment: dict[str, Any]) -> Any:
    module, _, name = deployment["entrypoint"].rpartition(".")
    return getattr(importlib.import_module(module), name)


DEPLOYMENTS = {
    f"{flow_of(item).name}/{item['name']}": item
    for item in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
}
ASKED_FOR = [name for name in DEPLOYMENTS if not name.endswith("/gpu")]
"""Deployments that a person, a clock or an event starts; a pipeline starts the others and gives the parameters."""


@pytest.fixture(autouse=True)
def where_it_is_deployed(prefect_harness: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand where `prefect deploy` is run, with the variables that it reads."""
    monkeypatch.setenv("RSDPO_STORE", "s3://bucket/prefix")
    monkeypatch.setenv("RSDPO_TEST_DATA", "/data")
    monkeypatch.chdir(ROOT)


@pytest.fixture
def deployed() -> Config:
    """Return the configuration that the shipped pipelines are deployed with."""
    return load_config("configs/deployed.yaml", [])


def parameters_of(name: str) -> dict[str, Any]:
    """Return the parameters that Prefect makes of a deployment: with the variables, and what its steps return."""
    item = apply_values(DEPLOYMENTS[name], os.environ, remove_notset=False)
    outputs = asyncio.run(run_steps(item.get("build", [])))
    parameters: dict[str, Any] = apply_values(item["parameters"], outputs)
    return parameters


def test_every_stage_and_every_pipeline_is_deployed(deployed: Config) -> None:
    stages = deployed.compute.deployments()
    assert list(stages) == list(GPU_STAGES)
    additions = {f"add-{what}/add-{what}" for what in ("prompts", "preferences")}
    others = {"quickstart/quickstart", "serve-judge/gpu"}
    assert set(DEPLOYMENTS) == {*others, *additions, *PIPELINES, *stages.values()}
    assert all(flow_of(DEPLOYMENTS[place]).fn.__name__ == stage for stage, place in stages.items())


@pytest.mark.parametrize("name", ASKED_FOR)
def test_parameters_fit_the_flow(name: str) -> None:
    flow_of(DEPLOYMENTS[name]).validate_parameters(parameters_of(name))


@pytest.mark.parametrize("name", ASKED_FOR)
def test_parameters_fit_the_schema_that_the_server_checks(name: str) -> None:
    schema = flow_of(DEPLOYMENTS[name]).parameters.model_dump()
    validate(parameters_of(name), schema, raise_on_error=True)


@pytest.mark.parametrize(("name", "file"), PIPELINES.items())
def test_parameters_are_those_of_the_configuration_file(name: str, file: str, deployed: Config) -> None:
    given = load_config(f"configs/{file}.yaml", [])
    where = {"compute": deployed.compute, "store": "s3://bucket/prefix"}  # what a deployment decides
    assert Config.model_validate(parameters_of(name)) == given.model_copy(update=where)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_is_deployed_with_every_setting(name: str) -> None:
    parameters = parameters_of(name)
    assert parameters == Config.model_validate(parameters).model_dump(mode="json")
    assert parameters.keys() == Config.model_fields.keys() == flow_of(DEPLOYMENTS[name]).parameters.properties.keys()


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_asks_the_pool_for_what_needs_a_gpu(name: str, deployed: Config) -> None:
    assert Config.model_validate(parameters_of(name)).compute == deployed.compute


def test_the_deployed_pipeline_works_on_what_the_quickstart_does(deployed: Config) -> None:
    changed = {"prompts": "added"}
    quickstart = load_config("configs/quickstart.yaml", [])
    assert deployed.data == quickstart.data.model_copy(update=changed)
    own = {"data", "compute", "store"}
    assert deployed.model_dump(exclude=own) == quickstart.model_dump(exclude=own)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_stage_never_waits_for_the_place_of_its_pipeline(name: str) -> None:
    pool = DEPLOYMENTS[name]["work_pool"]
    assert pool["name"] == (GPU_POOL if name.endswith("/gpu") else CPU_POOL)
    assert pool.get("work_queue_name", "default") in QUEUES[pool["name"]]


def test_what_happens_to_a_run_that_finds_another(deployed: Config) -> None:
    strategies = {name: item["concurrency_limit"] for name, item in DEPLOYMENTS.items() if "concurrency_limit" in item}
    assert strategies.pop("rs-dpo/scheduled") == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert strategies.pop("rs-dpo/new-prompts") == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert set(strategies) == {*deployed.compute.deployments().values(), "serve-judge/gpu"}
    assert all(limit["collision_strategy"] == "ENQUEUE" for limit in strategies.values())


def test_new_prompts_and_preferences_start_a_pipeline() -> None:
    triggers = [DeploymentEventTrigger.model_validate(one) for one in DEPLOYMENTS["rs-dpo/new-prompts"]["triggers"]]
    assert [trigger.expect for trigger in triggers] == [{"prompts.added"}, {"preferences.added"}]
    assert triggers[0].match == triggers[1].match


def deploy(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `prefect deploy` against the test server."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", *arguments]
    env = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "COLUMNS": "200", **variables}
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_prefect_deploys_what_the_files_say() -> None:
    asyncio.run(apply(1))
    result = deploy("--all")
    assert result.returncode == 0, result.stdout
    with get_client(sync_client=True) as client:
        found = {name: client.read_deployment_by_name(name) for name in DEPLOYMENTS}
        for name in ASKED_FOR:
            assert found[name].parameters == parameters_of(name)
        pairs = {**found["rs-dpo/scheduled"].parameters["pairs"], "eta": 0.9}  # as the form in the UI sends it
        typed = {**found["rs-dpo/scheduled"].parameters, "pairs": pairs}
        run = client.create_flow_run_from_deployment(found["rs-dpo/scheduled"].id, parameters=typed)
        wrong = {**typed, "pairs": {**pairs, "eta": 1.5}}
        with pytest.raises(PrefectHTTPStatusError, match=r"pairs.eta'. Failure reason: 1.5 is greater than"):
            client.create_flow_run_from_deployment(found["rs-dpo/scheduled"].id, parameters=wrong)
    assert found["train-dpo/gpu"].work_queue_name == "finish"
    assert found["train-sft/gpu"].description == flow_of(DEPLOYMENTS["train-sft/gpu"]).description
    assert Config.model_validate(run.parameters).pairs.eta == 0.9


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pairs: {eta: 0.3}", "pairs.eta = 0.3: Input should be greater than or equal to 0.5"),
        ("pears: {eta: 0.9}", "pears is no known setting"),
        ("store: ${NOWHERE_SET}", "uses the environment variable NOWHERE_SET, which is not set"),
    ],
)
def test_a_step_says_what_is_wrong_with_its_file(line: str, message: str, tmp_path: Path, capsys: Any) -> None:
    config = write_config(tmp_path, line)
    with pytest.raises(SystemExit, match="2"):
        read_configuration(config=config)
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {config}")
    assert message in printed


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({}, "config: Field required"),
        ({"config": None}, "config = None: Input should be a valid string"),
        ({"config": "configs/hh.yaml", "overrides": [{"store": "x"}]}, "overrides.0: Input should be a valid string"),
        ({"config": "configs/hh.yaml", "overrides": "store=x"}, "overrides = 'store=x': Input should be a valid list"),
        ({"config": "configs/hh.yaml", "unless_set": {"ABC": 5}}, "unless_set.ABC = 5: Input should be a valid string"),
        ({"config": "configs/hh.yaml", "override": []}, "override is no known setting"),
    ],
)
def test_a_step_says_what_is_wrong_with_itself(step: dict[str, Any], message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        read_configuration(**step)
    assert f"error: prefect.yaml, read_configuration: {message}" in capsys.readouterr().err


def test_a_switch_in_quotes_is_a_switch() -> None:
    assert read_configuration(config="configs/hh.yaml", on_gpus="false")["compute"]["train_sft"] == "inline"


def test_a_wrong_configuration_is_not_deployed(tmp_path: Path) -> None:
    asyncio.run(apply(1))
    config = write_config(tmp_path, "pairs: {eta: 0.3}")
    item = {**DEPLOYMENTS["rs-dpo/hh"], "name": "wrong"}
    item["build"] = [{"flows.deployed.read_configuration": {"id": "read", "config": config}}]
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [item], "pull": [{}]}))
    result = deploy("--prefect-file", str(tmp_path / "prefect.yaml"), "--name", "wrong")
    assert result.returncode == 2
    assert "Traceback" not in result.stdout
    assert f"error: {config}: pairs.eta = 0.3: Input should be greater than or equal to 0.5" in result.stdout
    with get_client(sync_client=True) as client, pytest.raises(ObjectNotFound):
        client.read_deployment_by_name("rs-dpo/wrong")


def test_a_variable_that_is_set_counts_before_its_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def path_of_the_lexicon() -> str:
        found = read_configuration(config="configs/stories.yaml", unless_set={"RSDPO_TEST_DATA": "elsewhere"})
        return str(found["evaluation"]["gold_reward"]["options"]["lexicon"])

    assert path_of_the_lexicon() == "/data/vader/vader_lexicon.txt"
    monkeypatch.delenv("RSDPO_TEST_DATA")
    assert path_of_the_lexicon() == "elsewhere/vader/vader_lexicon.txt"


def test_overrides_count_before_the_file_and_the_gpus() -> None:
    overrides = ["pairs.eta=0.9", "compute.train_dpo=inline"]
    found = read_configuration(config="configs/hh.yaml", overrides=overrides, on_gpus=True)
    assert (found["pairs"]["eta"], found["compute"]["train_dpo"]) == (0.9, "inline")
    assert found["compute"]["train_sft"] == "train-sft/gpu"


def write_config(folder: Path, line: str) -> str:
    """Write a configuration with one line that is wrong; return its path."""
    (folder / "mine.yaml").write_text(f"data: {{prompts: added}}\nsft: {{ready_model: here}}\n{line}\n")
    return str(folder / "mine.yaml")
