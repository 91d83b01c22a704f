"""What `prefect deploy` reads of a configuration file, so that prefect.yaml names the file and copies nothing of it."""

import os
from typing import Any

from pydantic import ValidationError

from flows.command_line import explain, load_config, stop
from tasks.config.compute import GPU_STAGES
from tasks.config.errors import ConfigurationError


def read_configuration(
    config: str,
    overrides: list[str] | None = None,
    on_gpus: bool = False,
    unless_set: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return every section of a configuration, defaults too, as a step of `prefect deploy`.

    Args:
        config: The file, as for the command line.
        overrides: `section.field=value`, as for `--set`.
        on_gpus: Place every GPU stage on its deployment `gpu`; what is in `overrides` counts before that.
        unless_set: Values for environment variables that are not set where it is deployed.

    Raises:
        SystemExit: The file is missing or no YAML, a variable is unset, or a key or value is wrong. After one message:
            Prefect would print any other exception of a step above forty lines of its own.
    """
    for name, value in (unless_set or {}).items():
        os.environ.setdefault(name, value)
    places = [f"compute.{stage}={stage.replace('_', '-')}/gpu" for stage in GPU_STAGES] if on_gpus else []
    try:
        return load_config(config, [*places, *(overrides or [])]).model_dump(mode="json")
    except ValidationError as error:  # names fields and not the file
        stop(ConfigurationError(f"{config}: {explain(error)}"))
    except ConfigurationError as error:
        stop(error)
