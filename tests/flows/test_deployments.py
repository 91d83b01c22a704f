"""prefect.yaml: every deployment names a flow that exists, with parameters that its configuration file has too."""

import importlib
from typing import Any

import pytest
import yaml
from prefect.events import DeploymentEventTrigger
from prefect.utilities.schema_tools import validate
from runs import ROOT

from flows.command_line import load_config
from infra.apply import CPU_POOL, GPU_POOL, QUEUES
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


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Config:
    """Return the configuration that the shipped pipelines are deployed with."""
    monkeypatch.setenv("RSDPO_STORE", "{{ $RSDPO_STORE }}")
    return load_config(str(ROOT / "configs/deployed.yaml"), [])


def test_every_stage_and_every_pipeline_is_deployed(deployed: Config) -> None:
    stages = deployed.compute.deployments()
    assert len(stages) == 6
    assert set(DEPLOYMENTS) == {"quickstart/quickstart", "add-prompts/add-prompts", *PIPELINES, *stages.values()}
    assert all(flow_of(DEPLOYMENTS[place]).fn.__name__ == stage for stage, place in stages.items())


@pytest.mark.parametrize("name", ASKED_FOR)
def test_parameters_fit_the_flow(name: str) -> None:
    flow_of(DEPLOYMENTS[name]).validate_parameters(DEPLOYMENTS[name]["parameters"])


@pytest.mark.parametrize("name", ASKED_FOR)
def test_parameters_fit_the_schema_that_the_server_checks(name: str) -> None:
    schema = flow_of(DEPLOYMENTS[name]).parameters.model_dump()
    validate(DEPLOYMENTS[name]["parameters"], schema, raise_on_error=True)


@pytest.mark.parametrize(("name", "file"), PIPELINES.items())
def test_parameters_are_those_of_the_configuration_file(name: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RSDPO_TEST_DATA", "RSDPO_STORE"):
        monkeypatch.setenv(variable, f"{{{{ ${variable} }}}}")
    monkeypatch.chdir(ROOT)
    deployed = Config.model_validate(DEPLOYMENTS[name]["parameters"])
    given = load_config(f"configs/{file}.yaml", [])
    where = {"compute": deployed.compute, "store": "{{ $RSDPO_STORE }}"}  # what a deployment decides
    assert deployed == given.model_copy(update=where)


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_asks_the_pool_for_what_needs_a_gpu(name: str, deployed: Config) -> None:
    assert Config.model_validate(DEPLOYMENTS[name]["parameters"]).compute == deployed.compute


def test_the_deployed_pipeline_works_on_what_the_quickstart_does(deployed: Config) -> None:
    changed = {"prompts": "added"}
    quickstart = load_config(str(ROOT / "configs/quickstart.yaml"), [])
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
    assert set(strategies) == set(deployed.compute.deployments().values())
    assert all(limit["collision_strategy"] == "ENQUEUE" for limit in strategies.values())


def test_new_prompts_start_a_pipeline() -> None:
    (trigger,) = DEPLOYMENTS["rs-dpo/new-prompts"]["triggers"]
    assert DeploymentEventTrigger.model_validate(trigger).expect == {"prompts.added"}
