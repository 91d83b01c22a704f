"""Write what docs/configuration.md lists: every setting, from its own documentation.

python docs/settings.py

The page's head is written by hand. What follows the marker is written by this command; tests/test_docs.py compares the
two.
"""

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from flows.rloo import rloo
from flows.rs_dpo import rs_dpo
from tasks.config.extra import EVERY_TRAINER, OWN
from tasks.config.sections import NOT_IN_KEY, Function, Located, Section
from tasks.config.settings import ENGINE_ARGUMENTS
from tasks.pipeline.configuration import Config

PAGE = Path(__file__).parent / "configuration.md"
MARKER = "<!-- What follows is written by `python docs/settings.py`. -->\n"
HEAD = ("setting", "type", "default", "bounds", "in key", "meaning")
NO_STAGE_READS = ("compute", "monitors", "store")
"""They say where a run computes, when it is doubted, and where it keeps what it made."""
BOUNDS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


def page() -> str:
    """Return the whole page: its head as it is, and the settings as they are now."""
    head = PAGE.read_text().partition(MARKER)[0]
    return head + MARKER + "\n" + "\n".join(settings())


def settings() -> Iterator[str]:
    """Yield the lines about the parameters of the flows, the sections within them, and what `extra` may hold."""
    parameters = get_type_hints(rs_dpo.fn) | get_type_hints(rloo.fn)
    del parameters["return"]
    kinds = {name: kind for name, kind in parameters.items() if is_section(kind)}
    for name, kind in kinds.items():
        yield from section_lines(f"`{name}`", kind, f"{name}.", name not in NO_STAGE_READS)
    others = {name: kind for name, kind in parameters.items() if name not in kinds}
    for name in others:
        yield f"## `{name}`\n"
        yield from table(HEAD, [row(name, Config.model_fields[name], name not in NO_STAGE_READS)])
    named = [each for kind in others.values() for each in sections_in(kind)]
    for kind in dict.fromkeys([*named, *inner_sections([*kinds.values(), *named])]):
        yield from section_lines(title(kind), kind, "", True)
    yield from extra_lines()


def section_lines(heading: str, kind: type[Section], prefix: str, is_read: bool) -> Iterator[str]:
    """Yield a section's heading, what it is for, and a row a setting."""
    yield f"## {heading}\n"
    yield f"{' '.join((kind.__doc__ or '').split())}\n"
    yield from table(HEAD, [row(prefix + name, field, is_read) for name, field in kind.model_fields.items()])


def row(name: str, field: FieldInfo, is_read: bool) -> tuple[str, ...]:
    """Return the cells of one setting."""
    meaning = " ".join((field.description or "").split())
    return (
        f"`{name}`",
        type_text(field.annotation),
        default_text(field),
        bounds_text(field),
        key(field, is_read),
        meaning,
    )


def key(field: FieldInfo, is_read: bool) -> str:
    """Return whether a setting counts in the key of the stages that read it."""
    if NOT_IN_KEY in field.metadata or not is_read:
        return "no"
    named = any(issubclass(kind, Located | Function) for kind in sections_in(field.annotation))
    return "content" if named else "yes"


def default_text(field: FieldInfo) -> str:
    """Return the default as YAML would have it."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Section):
        return "its defaults"
    value = to_jsonable_python(value)
    return "null" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def bounds_text(field: FieldInfo) -> str:
    """Return the bounds that a value must keep."""
    bounds = []
    for bound in field.metadata:
        if (sign := BOUNDS.get(type(bound))) is not None:
            bounds.append(f"{sign} {getattr(bound, type(bound).__name__.lower())}")
        elif isinstance(bound, MinLen):
            bounds.append("not empty")
        elif pattern := getattr(bound, "pattern", None):
            bounds.append(f"`{pattern}`")
    return ", ".join(bounds)


def type_text(kind: Any) -> str:
    """Return a type in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(type_text(each) for each in arguments)
    if origin in (list, tuple):
        return f"list of {type_text(arguments[0])}"
    if origin is dict:
        return f"mapping to {type_text(arguments[1])}" if is_section(arguments[1]) else "mapping"
    if is_section(kind):
        return f"[{title(kind).lower()}](#{title(kind).lower().replace(' ', '-')})"
    return {types.NoneType: "null", str: "text", bool: "true or false", int: "integer", float: "number"}.get(
        kind, getattr(kind, "__name__", str(kind))
    )


def sections_in(kind: Any) -> Iterator[type[Section]]:
    """Yield the sections that a type names."""
    if is_section(kind):
        yield kind
    for argument in get_args(kind):
        yield from sections_in(argument)


def inner_sections(kinds: typing.Iterable[type[Section]]) -> list[type[Section]]:
    """Return the sections that stand within others, each once."""
    found: dict[type[Section], None] = {}
    for kind in kinds:
        for field in kind.model_fields.values():
            for inner in sections_in(field.annotation):
                found |= dict.fromkeys([inner, *inner_sections([inner])])
    return list(found)


def is_section(kind: Any) -> bool:
    """Return whether a type is a section of settings."""
    return isinstance(kind, type) and issubclass(kind, Section)


def title(kind: type[Section]) -> str:
    """Return a class's name in words: `DataSource` is `Data source`."""
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in kind.__name__).split()
    return " ".join(words).capitalize()


def extra_lines() -> Iterator[str]:
    """Yield what the `extra` of each section may hold."""
    yield "## `extra`\n"
    yield "`sampling.extra` takes these arguments of vLLM's `LLM`. None counts in a key.\n"
    yield from table(
        ("argument", "type", "bounds"),
        [(f"`{name}`", type_text(bare), limits) for name, bare, limits in map(engine_argument, ENGINE_ARGUMENTS)],
    )
    yield "`extra` of a training takes these arguments of TRL's trainer configuration:\n"
    yield from table(
        ("section", "arguments"),
        [
            ("`sft`, `reward_model`, `dpo`, `rloo`", names(EVERY_TRAINER)),
            *((f"`{name}`, too", names(own)) for name, own in OWN.items()),
        ],
    )


def engine_argument(name: str) -> tuple[str, Any, str]:
    """Return an engine argument with its plain type and its bounds."""
    kind = ENGINE_ARGUMENTS[name]
    bare, *metadata = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    metadata = [each for item in metadata for each in getattr(item, "metadata", [item])]
    field = FieldInfo(annotation=bare)
    field.metadata = metadata
    return name, bare, bounds_text(field)


def names(arguments: typing.Iterable[str]) -> str:
    """Return names in order, as code."""
    return ", ".join(f"`{name}`" for name in sorted(arguments))


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    for cells in (head, ("---",) * len(head), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page())
