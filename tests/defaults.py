"""The defaults of all that a stage or a table reads, beside its version: `python -m tests.defaults` writes them.

A setting at its default is in no key, so that a new setting leaves every key as it was. A default that changes
therefore needs a new version of whatever reads it: this refuses to write what lacks one, and a test compares.
"""

import importlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, get_args

from tasks.config.sections import NOT_IN_KEY, Section, key_value
from tasks.config.settings import Decoding, ScoringConfig
from tasks.data import added_preferences, added_prompts
from tasks.judges import answers
from tasks.pipeline.stage import Stage
from tasks.planning import prediction
from tasks.rewards import table as reward_table
from tasks.sampling import completions
from tasks.training import reference

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).with_suffix(".json")

TABLES: dict[str, tuple[Any, type[Section] | None, Collection[str] | None]] = {
    "completions": (completions, Decoding, completions.DECIDES_A_COMPLETION),
    "rewards": (reward_table, ScoringConfig, None),
    "ref_logps": (reference, reference.Precision, None),
    "prompts": (added_prompts, None, None),
    "added_preferences": (added_preferences, None, None),
    "judgments": (answers, None, None),
    "predictions": (prediction, None, None),
}
"""Table -> its module, the section in its key, and the fields of it; None: all."""


def modules_with(text: str) -> list[Any]:
    """Return the modules of tasks/ whose source holds a text."""
    paths = (path for path in sorted((ROOT / "tasks").rglob("*.py")) if text in path.read_text())
    return [importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in paths]


def all_stages() -> dict[str, Stage]:
    found = [value for module in modules_with("\n@stage(") for value in vars(module).values()]
    return {value.name: value for value in found if isinstance(value, Stage)}


def all_defaults() -> dict[str, dict[str, Any]]:
    """Return version and defaults by stage and table."""
    stages = {
        f"stage {name}": {"version": stage.version, "defaults": dict(defaults_of_stage(stage))}
        for name, stage in all_stages().items()
    }
    tables = {
        f"table {name}": {
            "version": module.TABLE_VERSION,
            "defaults": {} if section is None else dict(defaults_of(section, name, only)),
        }
        for name, (module, section, only) in TABLES.items()
    }
    return dict(sorted((stages | tables).items()))


def defaults_of_stage(stage: Stage) -> Iterator[tuple[str, Any]]:
    for name, parameter in list(stage.signature.parameters.items())[1:]:
        if name in stage.defaults:
            yield name, key_value(stage.defaults[name])
        for section in sections_in(parameter.annotation):
            yield from defaults_of(section, name, stage.options.get("reads", {}).get(name))


def defaults_of(section: type[Section], within: str, only: Collection[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield the defaults of a section's fields, and of the sections that they may hold.

    Raises:
        KeyError: It has no such field.
    """
    for name in section.model_fields if only is None else sorted(only):
        field = section.model_fields[name]
        if NOT_IN_KEY in field.metadata:
            continue
        if not field.is_required():
            yield f"{within}.{name}", key_value(field.get_default(call_default_factory=True))
        inner = sections_in(field.annotation)
        for each in inner:
            yield from defaults_of(each, f"{within}.{name}" + (f":{each.__name__}" if len(inner) > 1 else ""))


def sections_in(annotation: Any) -> list[type[Section]]:
    """Return the sections that a value of a type may be or hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_in(part)]


def changed_alone(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the defaults that changed while the version of what reads them stayed."""
    return [
        f"{name} (version {new[name]['version']}): {setting} was {was!r}, is {new[name]['defaults'][setting]!r}"
        for name in old.keys() & new.keys()
        if old[name]["version"] == new[name]["version"]
        for setting, was in old[name]["defaults"].items()
        if new[name]["defaults"].get(setting, was) != was
    ]


def main() -> None:
    old, new = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}, all_defaults()
    if wrong := changed_alone(old, new):
        raise SystemExit("\n".join(["a changed default needs a new version of what reads it:", *wrong]))
    GOLDEN.write_text(json.dumps(new, indent=2) + "\n")


if __name__ == "__main__":
    main()
