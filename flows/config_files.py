"""Configuration files: read, overridden from the command line, validated; and what is wrong with one, in words."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from flows.settings_yaml import read_yaml
from tasks.config.errors import ConfigurationError
from tasks.config.sections import Section
from tasks.pipeline.configuration import Config

S = TypeVar("S", bound=Section)
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_OTHER_VARIABLE = re.compile(r"\$\{\s*[\w.]+\s*(:[^}]*)?\}")
"""How other programs write variables: `${NAME:-default}`, `${oc.env:NAME}`, `${ NAME }`."""
_ALTERNATIVE = re.compile(r"(Data|Preference)Source$|tuple\[|literal\[")
"""What pydantic calls one of several things that a setting may be."""


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


def explain(error: BaseException) -> str:
    """Return one message: for a configuration, a line a field with its value, its bound and what is wrong."""
    if not isinstance(error, ValidationError):
        return str(error)
    lines = []
    errors = error.errors()
    if len(errors) > 1:  # of a source that may also be a word or a list, what is wrong within the one that it is
        errors = [item for item in errors if not _ALTERNATIVE.match(str(item["loc"][-1]))] or errors
    for item in errors:
        name = ".".join(str(part) for part in item["loc"] if not _ALTERNATIVE.match(str(part)))
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
