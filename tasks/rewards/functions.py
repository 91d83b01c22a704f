"""Functions that a configuration names as rewards: loaded, checked, called, and keyed by what they compute."""

import functools
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from tasks.config.errors import ConfigurationError
from tasks.config.sections import NOT_IN_KEY, Function, Section
from tasks.pipeline.pace import Tell
from tasks.rewards.options import check_options, is_text

Reward = Callable[..., float]
METADATA, REFERENCE = "metadata", "reference_completion"
"""Parameters by which a function asks for the metadata of the prompt, and for the completion that came with it."""
LARGEST = float(np.finfo(np.float32).max)
"""Largest reward: the tables of rewards hold float32."""
_IMPORTED: WeakKeyDictionary[ModuleType, str] = WeakKeyDictionary()
"""Module -> sha256 of the source that it was imported from."""
COUNTS_WITH = "COUNTS_WITH"
"""Constant of a module that names others, whose source is part of what its functions compute."""


class Answer(NamedTuple):
    """A completion with what is known of its prompt."""

    messages: list[dict]
    completion: str
    metadata: str | None = None
    """JSON of the prompt's columns `metadata` and `id`, as the table of prompts has it."""
    reference_completion: str | None = None
    """The completion that came with the prompt."""
    id: str = ""
    """`prompt_id/completion_id`, for errors."""


class UnscoredError(ValueError):
    """A function gave a completion no reward, for the reason that the message says."""


class GoldReward(Section):
    """A gold reward as stages see it: the function, and the digest of its source, options and files."""

    function: Annotated[Function | None, NOT_IN_KEY] = None
    digest: str = ""


def _import(function: Function) -> ModuleType:
    """Return the module of a function, and remember the source that it was made from."""
    name = function.function.partition(":")[0]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module that exists but lacks one of its own imports is another mistake, and keeps its own message.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(
            f"function = {function.function!r}: no module {name!r}; check its name, or put it on PYTHONPATH"
        ) from error
    if (source := _source_of(module)) is not None:
        _IMPORTED.setdefault(module, _sha256(source))
    return module


def _source_of(module: ModuleType) -> str | None:
    source = inspect.getsourcefile(module) if getattr(module, "__file__", None) else None
    return source if source is not None and os.path.isfile(source) else None


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
        signature.bind([], "", **_asked(found, Answer([], "")), **function.options)
    except TypeError as error:
        raise ConfigurationError(
            f"function = {function.function!r}: options {sorted(function.options)} do not fit ({error}); "
            f"it takes (messages, completion), the prompt's {METADATA} and {REFERENCE} if it wants them, and options, "
            f"and is {name}{signature}"
        ) from error
    try:
        check_options(found, function.options)
    except ConfigurationError as error:
        raise ConfigurationError(f"function = {function.function!r}: {error}") from error
    return functools.partial(found, **function.options)


def _asked(found: Callable[..., Any], answer: Answer) -> dict[str, Any]:
    """Return what is known of the prompt, as the arguments of a function that has parameters of these names."""
    parameters = inspect.signature(found).parameters
    asked = {METADATA: metadata_of(answer.metadata)} if METADATA in parameters else {}
    return asked | ({REFERENCE: answer.reference_completion} if REFERENCE in parameters else {})


def metadata_of(text: str | None) -> dict[str, Any]:
    """Return the metadata of a prompt as its table has it: columns by name, none where there are none."""
    return dict(json.loads(text or "{}"))


def function_digest(function: Function) -> str:
    """Return the sha256 of what the function computes: its module's source, its name and its options.

    An option that names an existing file counts by the file's content, so that a moved file changes nothing. Code that
    the module imports does not count, but for the modules that its `COUNTS_WITH` names.

    Raises:
        ConfigurationError: The module does not exist, has no source file, or was imported from another source.
    """
    module = _import(function)
    source = _source_of(module)
    if source is None:
        raise ConfigurationError(
            f"function = {function.function!r} must be in a Python file, whose source is digested: wrap it in one"
        )
    if _sha256(source) != _IMPORTED[module]:
        raise ConfigurationError(
            f"function = {function.function!r}: {source} has changed since this process imported it, and would compute "
            "what it was before: start the process again"
        )
    found = getattr(module, function.function.partition(":")[2])
    paths = {key for key, value in function.options.items() if isinstance(value, str) and not is_text(found, key)}
    for key, value in function.options.items():
        if key in paths and os.sep in value and not os.path.exists(value):
            raise ConfigurationError(
                f"function = {function.function!r}: option {key} names {value}, which does not exist: check the path"
            )
    options = {
        key: {"sha256": _sha256(value)} if key in paths and os.path.isfile(value) else {"value": value}
        for key, value in function.options.items()
    }
    parts = [_sha256(source), function.function.partition(":")[2], options]
    specs = [importlib.util.find_spec(name) for name in getattr(module, COUNTS_WITH, ())]
    parts += [_sha256(str(spec.origin)) for spec in specs if spec is not None]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def load_checked(function: Function, digest: str) -> Reward:
    """Return a function that a run was asked to compute with.

    Raises:
        ConfigurationError: The function does not exist here, or is another one than its digest says.
    """
    if (found := function_digest(function)) != digest:
        raise ConfigurationError(
            f"function = {function.function!r} is another one here (digest {found[:12]}) than where the run was "
            f"started ({digest[:12]}): give this worker the same source, options and files, and restart it"
        )
    return load_function(function)


def call(reward: Reward, answer: Answer) -> float:
    """Return the reward that a function gives a completion.

    Raises:
        ConfigurationError: The function says that it is not configured as it must be.
        UnscoredError: It raised something else, or returned no number that is finite in float32, as rewards are kept.
    """
    try:
        value: Any = reward(answer.messages, answer.completion, **_asked(reward, answer))
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's code may raise is about this row
        raise UnscoredError(f"it raised {type(error).__name__}: {_one_line(error)}") from error
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise UnscoredError(f"it returned {value!r:.80}, and not a number")
    try:
        number = float(value)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:  # arrays and tensors of several numbers
        raise UnscoredError(f"it returned {_one_line(repr(value)):.80}, and not one number") from error
    if not abs(number) <= LARGEST:
        raise UnscoredError(f"it returned {number:g}, which is not finite in float32")
    return number


def load_gold(gold: GoldReward) -> Reward:
    """Return the gold reward that a stage was asked to compute with; raises as `load_checked`."""
    assert gold.function is not None
    return load_checked(gold.function, gold.digest)


def gold_rewards(gold: GoldReward, given: Sequence[Answer], tell: Tell = lambda rewards: None) -> np.ndarray:
    """Return the gold reward of each completion, (completions,) float64.

    Args:
        gold: Names a function.
        given: The completions, each with its prompt.
        tell: Hears of each reward.

    Raises:
        ConfigurationError: The function fails on a completion, or is another one here than the key says.
    """
    assert gold.function is not None
    reward = load_gold(gold)
    found = np.full(len(given), np.nan)
    failures = list[tuple[str, UnscoredError]]()
    for place, each in enumerate(given):
        try:
            found[place] = call(reward, each)
        except UnscoredError as error:
            failures.append((each.completion[:80], error))
        tell(found[place : place + 1])
    if failures:
        text, why = failures[0]
        raise ConfigurationError(
            f"evaluation.gold_reward = {gold.function.function} gives {len(failures)} of {found.size} completions no "
            f"finite reward, first {text!r}: {why}; return a number for every text"
        ) from why
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


def _sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _one_line(what: object) -> str:
    return " ".join(str(what).split())[:200]
