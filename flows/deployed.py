"""What `prefect deploy` reads of a configuration file, so that prefect.yaml names the file and copies nothing of it."""

import os
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.command_line import stop
from flows.config_files import explain, load_config
from tasks.config.compute import GPU_STAGES
from tasks.config.errors import ConfigurationError


class Step(BaseModel):
    """What prefect.yaml gives the step `flows.deployed.read_configuration`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    config: str
    """The file, as for the command line."""
    overrides: list[str] = []
    """`section.field=value`, as for `--set`."""
    on_gpus: bool = False
    """Place every GPU stage on its deployment `gpu`; what is in `overrides` counts before that."""
    unless_set: dict[str, str] = {}
    """Values for environment variables that are not set where it is deployed."""


def read_configuration(**step: Any) -> dict[str, Any]:
    """Return every section of a configuration, defaults too, as a step of `prefect deploy`; see `Step`.

    Raises:
        SystemExit: The step or the configuration is wrong. After one message: Prefect would print any other exception
            of a step above forty lines of its own.
    """
    try:
        given = Step.model_validate(step)
    except ValidationError as error:
        stop(ConfigurationError(f"prefect.yaml, read_configuration: {explain(error)}"))
    for name, value in given.unless_set.items():
        os.environ.setdefault(name, value)
    places = [f"compute.{stage}={stage.replace('_', '-')}/gpu" for stage in GPU_STAGES] if given.on_gpus else []
    try:
        return load_config(given.config, [*places, *given.overrides]).model_dump(mode="json")
    except ValidationError as error:  # names fields and not the file
        stop(ConfigurationError(f"{given.config}: {explain(error)}"))
    except ConfigurationError as error:
        stop(error)
