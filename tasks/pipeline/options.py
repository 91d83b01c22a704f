"""What a stage brings beside its body, and what is refused of it where the stage is made."""

import inspect
import string
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypedDict, get_type_hints

from tasks.config.sections import Section
from tasks.pipeline.configuration import RlooRun
from tasks.store.artifacts import Artifact


class Work(NamedTuple):
    """What there is to compute for the output of a stage that fills a table which it shares with others."""

    lock: str
    """Names the table: only one run of a deployment at a time works on it, or on a shard of it."""
    missing: Callable[[], int]
    """Returns how much is missing; 0: the table has it all, and what remains is to name it."""


class Options(TypedDict, total=False):
    """What a stage brings beside its body. Each function is called with the stage's arguments that it names.

    `out` is the draft of the output, `store` its store, and `shards` the number of workers to split the work over.
    """

    preview: Callable[..., tuple[Artifact, dict[str, Any]]]
    """Called in place of the body in a dry run; returns the expected artifact and what it would cost. Left out for a
    stage that reads data and loads no model: a dry run runs it into memory."""
    given: Callable[..., Artifact | None]
    """Returns an artifact that takes the place of the stage's output, or None. Knows the arguments alone."""
    work: Callable[..., Work]
    """Returns what is missing. Left out by a stage that computes its output alone and as a whole."""
    split: Callable[..., list[dict[str, Artifact]]]
    """Returns, for each of several workers, the arguments that it gets in place of the stage's own. Needs `work`."""
    here: Callable[..., bool]
    """Tells of the arguments whether the stage computes in the flow's own process wherever it is deployed."""
    page: Callable[..., list[str]]
    """Returns the lines of Markdown that stand for the stats of `artifact` on the stage's page in Prefect's UI."""
    gpus: str
    """The section of the run's configuration that says on how many GPUs the stage computes, such as `sampling` or
    `evaluation.benchmarks.sampling`. Left out: on one."""
    run_name: str
    """What a run of the stage on a worker is called; `{prompts.rows}` stands for the rows of the argument `prompts`."""
    retries: int
    """How often Prefect repeats the task after a failure that is no ConfigurationError. For I/O and GPU work."""
    reads: Mapping[str, Collection[str]]
    """Section -> the fields of it that the body reads, of a section that it does not read as a whole. The others are
    not in the key."""
    dropped: Collection[str]
    """Inputs that the body once had, and that were `NOTHING`: they stay in the key, so that what was computed before is
    found."""
    same: Mapping[str, str]
    """Input -> the input that it is by default: where both are the same, it is not in the key."""


FUNCTIONS = {
    "preview": {"out", "store"},
    "given": set[str](),
    "work": {"out", "store"},
    "split": {"out", "store", "shards"},
    "here": set[str](),
    "page": {"artifact"},
}
"""Options that are functions -> what they may ask for beside the body's arguments; a page asks for nothing else."""


def check_options(body: Callable[..., Any], options: Options) -> None:
    """Refuse options that would fail, or do nothing, when the stage is called.

    Raises:
        TypeError: Names the stage, the option, and what is wrong with it.
    """
    arguments = list(inspect.signature(body).parameters)[1:]
    for name, option in options.items():
        if (reason := _why_not(name, option, arguments, get_type_hints(body))) is not None:
            raise TypeError(f"{body.__name__}: {name} {reason}")
    if "split" in options and "work" not in options:
        raise TypeError(f"{body.__name__}: split needs work, which says when nothing is missing any more")


def _why_not(name: str, option: Any, arguments: list[str], hints: Mapping[str, Any]) -> str | None:
    """Return why an option is refused, or None."""
    if name not in Options.__annotations__:
        return f"is no option of a stage: there are {', '.join(Options.__annotations__)}"
    if name in FUNCTIONS:
        return _why_not_called(option, FUNCTIONS[name] | set(() if name == "page" else arguments))
    if name == "retries" and not (isinstance(option, int) and option >= 0):
        return f"= {option!r} must be a number, 0 or more"
    if name == "gpus" and option.partition(".")[0] not in RlooRun.model_fields:
        return f"= {option!r} is no section of the configuration"
    if name == "run_name":
        return _unknown(
            (field.partition(".")[0] for _, field, *_ in string.Formatter().parse(option) if field), arguments
        )
    if name == "same":
        artifacts = [argument for argument in arguments if hints.get(argument) is Artifact]
        itself = [one for one, other in option.items() if one == other]
        return f"names {itself} as the same as itself" if itself else _unknown([*option, *option.values()], artifacts)
    if name == "dropped" and (isinstance(option, str) or set(option) & set(arguments)):
        return f"= {option!r} must be a list of inputs that the body has no more"
    return _why_not_read(option, hints) if name == "reads" else None


def _why_not_called(function: Any, known: set[str]) -> str | None:
    """Return why a function cannot be called with the arguments that it names, or None."""
    if not callable(function):
        return f"= {function!r} is no function"
    parameters = inspect.signature(function).parameters
    if any(each.kind is not each.POSITIONAL_OR_KEYWORD for each in parameters.values()):
        return "must name its arguments, without * and /"
    return _unknown(parameters, known)


def _why_not_read(reads: Mapping[str, Collection[str]], hints: Mapping[str, Any]) -> str | None:
    """Return why fields of sections cannot be all that a body reads, or None."""
    for section, fields in reads.items():
        kind = hints.get(section)
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            return f"names {section}, which is no section among the body's arguments"
        if isinstance(fields, str) or (unknown := set(fields) - kind.model_fields.keys()):
            return f"names {fields if isinstance(fields, str) else sorted(unknown)}, which are no fields of {section}"
    return None


def _unknown(names: Collection[str] | Any, known: Collection[str]) -> str | None:
    unknown = sorted(set(names) - set(known))
    return f"asks for {unknown}, which the body does not have" if unknown else None
