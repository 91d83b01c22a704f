"""Functions that a configuration names, such as a gold reward: loaded, checked, and keyed by what they compute."""

import functools
import hashlib
import importlib
import inspect
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NamedTuple

import numpy as np

from tasks.config.errors import ConfigurationError
from tasks.config.sections import NOT_IN_KEY, Function, Section
from tasks.pipeline.pace import Tell

Reward = Callable[..., float]
METADATA = "metadata"
"""Parameter by which a function asks for the metadata of the prompt."""


class Answer(NamedTuple):
    """A completion with what is known of its prompt."""

    messages: list[dict]
    completion: str
    metadata: str | None = None
    """JSON of the prompt's columns `metadata` and `id`, as the table of prompts has it."""


class GoldReward(Section):
    """A gold reward as stages see it: the function, and the digest of its source, options and files."""

    function: Annotated[Function | None, NOT_IN_KEY] = None
    digest: str = ""


def _import(function: Function) -> ModuleType:
    name = function.function.partition(":")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module that exists but lacks one of its own imports is another mistake, and keeps its own message.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(
            f"function = {function.function!r}: no module {name!r}; check its name, or put it on PYTHONPATH"
        ) from error


def load_function(function: Function) -> Reward:
    """Return the configured function with its options filled in.

    Raises:
        ConfigurationError: The module or function does not exist, or does not take these options.
    """
    module, name = _import(function), function.function.partition(":")[2]
    found: Any = getattr(module, name, None)
    if not callable(found):
        own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
        known = ", ".join(value.__name__ for value in own if inspect.isfunction(value) and value.__name__[0] != "_")
        raise ConfigurationError(
            f"function = {function.function!r}: no function {name!r}; the module has {known or 'none'}"
        )
    signature = inspect.signature(found)
    try:
        signature.bind([], "", **_asked(found), **function.options)
    except TypeError as error:
        raise ConfigurationError(
            f"function = {function.function!r}: options {sorted(function.options)} do not fit ({error}); "
            f"it takes (messages, completion), the prompt's metadata if it wants them, and options, and is "
            f"{name}{signature}"
        ) from error
    return functools.partial(found, **function.options)


def _asked(found: Callable[..., Any], metadata: str | None = None) -> dict[str, Any]:
    """Return the prompt's metadata as the argument of a function that has a parameter of this name."""
    return {METADATA: metadata_of(metadata)} if METADATA in inspect.signature(found).parameters else {}


def metadata_of(text: str | None) -> dict[str, Any]:
    """Return the metadata of a prompt as its table has it: columns by name, none where there are none."""
    return dict(json.loads(text or "{}"))


def function_digest(function: Function) -> str:
    """Return the sha256 of what the function computes: its module's source, its name and its options.

    An option that names an existing file counts by the file's content, so that a moved file changes nothing. Code that
    the module imports does not count.

    Raises:
        ConfigurationError: The module does not exist or has no source file.
    """
    module = _import(function)
    source = inspect.getsourcefile(module) if getattr(module, "__file__", None) else None
    if source is None:
        raise ConfigurationError(
            f"function = {function.function!r} must be in a Python file, whose source is digested: wrap it in one"
        )
    for key, value in function.options.items():
        if isinstance(value, str) and os.sep in value and not os.path.exists(value):
            raise ConfigurationError(
                f"function = {function.function!r}: option {key} names {value}, which does not exist: check the path"
            )
    options = {
        key: {"sha256": hashlib.sha256(Path(value).read_bytes()).hexdigest()}
        if isinstance(value, str) and os.path.isfile(value)
        else {"value": value}
        for key, value in function.options.items()
    }
    parts = [hashlib.sha256(Path(source).read_bytes()).hexdigest(), function.function.partition(":")[2], options]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def load_gold(gold: GoldReward) -> Reward:
    """Return the gold reward that a stage was asked to compute with.

    Raises:
        ConfigurationError: The function does not exist here, or is another one than the stage's key says.
    """
    assert gold.function is not None
    if (found := function_digest(gold.function)) != gold.digest:
        raise ConfigurationError(
            f"function = {gold.function.function!r} is another one here (digest {found[:12]}) than where the run was "
            f"started ({gold.digest[:12]}): give this worker the same source, options and files, and restart it"
        )
    return load_function(gold.function)


def gold_rewards(gold: GoldReward, given: Sequence[Answer], tell: Tell = lambda rewards: None) -> np.ndarray:
    """Return the gold reward of each completion, (completions,) float64.

    Args:
        gold: Names a function.
        given: The completions, each with its prompt.
        tell: Hears of each reward.

    Raises:
        ConfigurationError: A reward is no finite number, or the function is another one here than the key says.
    """
    assert gold.function is not None
    reward = load_gold(gold)
    found = np.empty(len(given))
    for place, each in enumerate(given):
        found[place] = reward(each.messages, each.completion, **_asked(reward, each.metadata))
        tell(found[place : place + 1])
    if (bad := np.flatnonzero(~np.isfinite(found))).size:
        raise ConfigurationError(
            f"evaluation.gold_reward = {gold.function.function} gives {bad.size} of {found.size} completions no finite "
            f"reward, first {given[bad[0]].completion[:80]!r}: return a number for every text"
        )
    return found


def find_gold(function: Function | None) -> GoldReward:
    """Return the gold reward as stages see it, after checking that it loads.

    Raises:
        ConfigurationError: The function does not exist, or does not take its options.
    """
    if function is None:
        return GoldReward()
    load_function(function)
    return GoldReward(function=function, digest=function_digest(function))
