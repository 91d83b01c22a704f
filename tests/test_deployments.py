"""prefect.yaml: every deployment names a flow that exists, with parameters that its configuration file has too."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.utilities.schema_tools import validate

from flows.command_line import load_config, sections
from tasks.config import Config

ROOT = Path(__file__).parent.parent
DEPLOYMENTS = {item["name"]: item for item in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}


def flow_of(deployment: dict[str, Any]) -> Any:
    path, _, name = deployment["entrypoint"].partition(":")
    return getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)


def test_the_three_deployments_are_there() -> None:
    assert set(DEPLOYMENTS) == {"quickstart", "stories", "hh"}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_parameters_fit_the_flow(name: str) -> None:
    flow_of(DEPLOYMENTS[name]).validate_parameters(DEPLOYMENTS[name]["parameters"])


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_parameters_fit_the_schema_that_the_server_checks(name: str) -> None:
    schema = flow_of(DEPLOYMENTS[name]).parameters.model_dump()
    validate(DEPLOYMENTS[name]["parameters"], schema, raise_on_error=True)


@pytest.mark.parametrize("name", ["stories", "hh"])
def test_parameters_are_those_of_the_configuration_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSDPO_TEST_DATA", "{{ $RSDPO_TEST_DATA }}")
    monkeypatch.chdir(ROOT)
    deployed = Config.model_validate(DEPLOYMENTS[name]["parameters"])
    assert sections(deployed) == sections(load_config(f"configs/{name}.yaml", []))
