"""Sections with the least that each must be given."""

from tasks.config.sections import Function, Section
from tasks.config.settings import DataConfig, SftConfig

LEAST: dict[type[Section], dict] = {
    DataConfig: {"prompts": "p.jsonl"},
    SftConfig: {"ready_model": "m"},
    Function: {"function": "m:f"},
}
"""What a section cannot do without."""


def make(section, **fields):
    return section(**{**LEAST.get(section, {}), **fields})
