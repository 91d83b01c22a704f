"""Configurations of arms, without a file."""

from typing import Any

from tasks.pipeline.configuration import Config


def load(_: str, overrides: dict[str, Any], kind: type[Config] = Config) -> Config:
    """Return the smallest configuration, overridden by `section.field: value`."""
    values: dict[str, Any] = {"data": {"prompts": "p"}, "sft": {"ready_model": "m"}}
    for name, value in overrides.items():
        *sections, field = name.split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[field] = value
    return kind.model_validate(values)
