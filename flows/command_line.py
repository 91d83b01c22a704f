"""The command line of a flow: a configuration file with overrides, a dry run, and what may go wrong."""

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from prefect import Flow
from pydantic import ValidationError

from flows.prefect_server import ServerError, check_places, start_server
from flows.printing import print_plan, print_prediction, print_report
from flows.run_log import RunLog, ended_by_signals, redacted
from flows.settings_yaml import read_yaml
from tasks.config.errors import ConfigurationError
from tasks.config.sections import Section
from tasks.monitors.judging import MonitorError
from tasks.pipeline.configuration import Config
from tasks.pipeline.dispatch import DeploymentFailedError, DeploymentRunError
from tasks.pipeline.dry_run import PLAN, Plan
from tasks.store.artifacts import Artifact, DamagedArtifactError
from tasks.store.filesystem import STORE_ERRORS

S = TypeVar("S", bound=Section)
Pipeline = Flow[..., dict[str, Artifact]]
Prepare = Callable[[], object]
FAILS = (DamagedArtifactError, DeploymentFailedError, DeploymentRunError, MonitorError, ServerError, *STORE_ERRORS)
"""What may pass when the store, a worker or the network is mended, or another range is set."""
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_OTHER_VARIABLE = re.compile(r"\$\{\s*[\w.]+\s*(:[^}]*)?\}")
"""How other programs write variables: `${NAME:-default}`, `${oc.env:NAME}`, `${ NAME }`."""


def main(flow: Pipeline, arguments: list[str] | None = None, prepare: Prepare | None = None) -> dict[str, Artifact]:
    """Run a flow on a configuration file; exit with one message where it cannot run.

    The exit status is 2 where something is typed wrong, 1 where the store, a worker or anything else fails (run again),
    128 and its number after a signal. What else there is to say of a failure is in a file that the message names.
    `prepare` makes what the configuration reads, once the settings are known to be right.
    """
    options = _parser().parse_args(arguments)
    with ends_with_a_message():
        return _run(flow, options, prepare)
    raise AssertionError("a command that goes wrong ends its process")


@contextlib.contextmanager
def ends_with_a_message() -> Iterator[None]:
    """End the process with one message and an exit status, as `main` says, where what a command does goes wrong."""
    sys.excepthook = print_error
    if sys.stdout is None:  # closed; the artifacts are in the store all the same
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    with ended_by_signals():
        try:
            yield
        except ConfigurationError as error:
            stop(error)
        except FAILS as error:
            stop(error, status=1)
        except KeyboardInterrupt as error:
            stop(error, status=128 + signal.SIGINT)
        except SystemExit as error:
            if int(error.code or 0) <= 128:  # of rich, where nobody reads the output any more
                raise
            stop(error, status=int(error.code or 0))  # by a signal


def _run(flow: Pipeline, options: argparse.Namespace, prepare: Prepare | None) -> dict[str, Artifact]:
    try:
        pilot = [] if options.pilot is None else [f"data.pilot={options.pilot}"]
        parameters = load_config(options.config, [*options.set, *pilot]).sections()
    except ValidationError as error:  # of the configuration, and of nothing that is read or asked later
        raise ConfigurationError(explain(error)) from error
    if prepare is not None:
        prepare()
    if not options.dry_run:
        check_places()
    with RunLog(unless=(ConfigurationError,)):
        plan = foresee(flow, parameters)
    if options.dry_run:
        print_plan(plan, as_json=options.json)
        return {}
    with RunLog() as log:
        start_server(log.path)
        artifacts: dict[str, Artifact] = flow(**parameters)
    if "prediction" in artifacts:
        print_prediction(artifacts, parameters["data"], as_json=options.json)
    else:
        print_report(artifacts, as_json=options.json)
    return artifacts


def load_config(path: str, overrides: list[str]) -> Config:
    """Read a configuration file, put overrides and environment variables in, and validate it.

    Args:
        path: YAML that lists what differs from the defaults; `${NAME}` stands for an environment variable.
        overrides: `section.field=value`, the value in YAML.

    Raises:
        ConfigurationError: The file is missing or no YAML, a variable is unset, or a key or value is wrong.
    """
    return Config.model_validate(read_file(path, overrides))


def load_values(path: str, overrides: Mapping[str, Any], kind: type[Config] = Config) -> Config:
    """Read a configuration file and override settings with values, as `load_config` does with texts.

    Raises:
        ConfigurationError: See `load_config`; or a setting is wrong.
    """
    return read_section(kind, path, [f"{name}={json.dumps(value)}" for name, value in overrides.items()])


def read_file(path: str, overrides: list[str]) -> dict[str, Any]:
    """Return what a configuration file says, overridden, before it is validated.

    Raises:
        ConfigurationError: See `load_config`.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigurationError(f"configuration file {path} does not exist; the shipped ones are in configs/")
    values = _expand(read_yaml(file.read_bytes(), path) or {}, path)
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} must hold sections (data, sft, ...), not a {type(values).__name__}")
    for override in overrides:
        _override(values, override)
    return values


def read_section(kind: type[S], path: str, overrides: list[str]) -> S:
    """Read a file that is one section, such as a comparison, and override it.

    Raises:
        ConfigurationError: See `load_config`; or a field is wrong.
    """
    try:
        return kind.model_validate(read_file(path, overrides))
    except ValidationError as error:
        raise ConfigurationError(explain(error)) from error


def foresee(flow: Pipeline, parameters: dict[str, Any]) -> Plan:
    """Go through a flow without running it: read the data, check the models, look every stage up in the store."""
    with tempfile.TemporaryDirectory(prefix="rs-dpo-plan-") as folder:
        plan = Plan(Path(folder))
        token = PLAN.set(plan)
        try:
            flow.fn(**parameters)
        finally:
            PLAN.reset(token)
    return plan


def explain(error: BaseException) -> str:
    """Return one message: for a configuration, a line a field with its value, its bound and what is wrong."""
    if not isinstance(error, ValidationError):
        return str(error)
    lines = []
    errors = error.errors()
    if len(errors) > 1:  # of a source that may also be a word, such as `gold`, what is wrong with it as a source
        errors = [item for item in errors if not str(item["loc"][-1]).startswith("literal[")] or errors
    for item in errors:
        name = ".".join(str(part) for part in item["loc"] if part != "DataSource")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            lines.append(f"{name} is no known setting: check its spelling")
        elif isinstance(item["input"], dict | list):
            lines.append(f"{name}: {message}" if name else message)
        else:
            lines.append(f"{name} = {item['input']!r}: {message}{_meaning(item['loc'])}")
    return "\n       ".join(lines)


def _meaning(location: tuple[int | str, ...]) -> str:
    """Return what a setting means, as its section documents it."""
    fields: dict[str, Any] = Config.model_fields
    for name in location[:-1]:
        section = fields[name].annotation if name in fields else None
        fields = getattr(section, "model_fields", {})
    field = fields.get(str(location[-1]))
    return f" ({' '.join(field.description.split())})" if field is not None and field.description else ""


def print_error(kind: type[BaseException], error: BaseException, trace: Any = None) -> None:
    """Print one message for an error, foreseen or not, and the file that has the rest."""
    message, notes = explain(error), getattr(error, "__notes__", [])
    if isinstance(error, KeyboardInterrupt | SystemExit):
        message = "ended by a signal: run again, and it goes on from what the store has"
    elif not isinstance(error, (ConfigurationError, ValidationError, *FAILS)):
        if not notes:  # no file has the traceback
            sys.__excepthook__(kind, error, trace)
            return
        message = ": ".join([kind.__name__, *message.splitlines()[:1]])
    print(redacted("\n       ".join([f"error: {message}", *notes])), file=sys.stderr)


def stop(error: BaseException, status: int = 2) -> NoReturn:
    """End the process with one message."""
    print_error(type(error), error)
    raise SystemExit(status) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Align a language model with RS-DPO.")
    parser.add_argument("config", help="configuration file, e.g. configs/hh.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="override one setting"
    )
    parser.add_argument(
        "--pilot", metavar="N", help="go through N prompts, and predict what the whole run will find and cost"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be computed, and compute nothing")
    parser.add_argument("--json", action="store_true", help="print artifacts and metrics as one last line of JSON")
    return parser


def _expand(value: Any, path: str) -> Any:
    """Put environment variables into every string of a parsed file."""
    if isinstance(value, dict):
        return {key: _expand(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, path) for item in value]
    if not isinstance(value, str):
        return value
    for name in _VARIABLE.findall(value):
        if not os.environ.get(name):
            state = "empty" if name in os.environ else "not set"
            raise ConfigurationError(
                f"{path} uses the environment variable {name}, which is {state}: set it and run again"
            )
    if (other := _OTHER_VARIABLE.search(_VARIABLE.sub("", value))) is not None:
        raise ConfigurationError(f"{path}: {other[0]} is not read: an environment variable is written ${{NAME}}")
    return _VARIABLE.sub(lambda match: os.environ[match[1]], value)


def _override(values: dict[str, Any], override: str) -> None:
    """Set one value, making sections on the way."""
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise ConfigurationError(f"--set {override} must look like section.field=value, e.g. pairs.eta=0.9")
    *sections, field = name.split(".")
    for section in sections:
        inner = values.get(section) or {}
        if not isinstance(inner, dict | str):
            raise ConfigurationError(f"--set {override}: {section} is no section, but {inner!r}")
        values[section] = inner = {"path": inner} if isinstance(inner, str) else dict(inner)
        values = inner
    values[field] = _expand(read_yaml(value, f"--set {override}: {value!r}"), "--set")
