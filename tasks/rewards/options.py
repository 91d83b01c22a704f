"""Options of functions that a configuration names: checked by the types that the functions give them.

`def f(messages, completion, weight: Annotated[float, Field(ge=0)]) -> float` has one option, a number from 0.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from tasks.config.errors import ConfigurationError

_TEXT = "text"
Text = Annotated[str, _TEXT]
"""A text that names no file, whatever it looks like: a slash in a regular expression begins no path."""
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


def check_options(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse an option that is not of its parameter's type; a default counts where the type is `Annotated`.

    A parameter without a type, or whose type names something that is not there, takes anything.

    Raises:
        ConfigurationError: Names the option, its value and what it must be.
    """
    hints = _hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints.get(name)
        given = name in options or (hasattr(hint, "__metadata__") and parameter.default is not parameter.empty)
        if hint is None or not given:
            continue
        value = options.get(name, parameter.default)
        try:
            TypeAdapter(hint, config=_STRICT).validate_python(value)
        except ValidationError as error:
            why = "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
            raise ConfigurationError(f"option {name} = {value!r}: {why}") from error


def is_text(function: Callable[..., Any], option: str) -> bool:
    """Return whether an option is a text that names no file, even where a file has this name."""
    hint = _hints(function).get(option)
    return any(_TEXT in getattr(each, "__metadata__", ()) for each in (hint, *get_args(hint)))  # it may be optional


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of a function's parameters, none where one cannot be resolved."""
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:
        return {}
