"""The forms of preferences that are known, and which one a source has."""

from tasks.config.errors import ConfigurationError
from tasks.config.sections import PreferenceSource
from tasks.data.formats.helpsteer import HELPSTEER, HELPSTEER2_PREFERENCE, HELPSTEER3
from tasks.data.formats.kto import KTO
from tasks.data.formats.nectar import NECTAR
from tasks.data.formats.oasst import OASST
from tasks.data.formats.rankings import Format
from tasks.data.formats.saferlhf import SAFERLHF
from tasks.data.formats.scored_pairs import SCORED_PAIRS
from tasks.data.formats.shp import SHP
from tasks.data.formats.ultrafeedback import ULTRAFEEDBACK
from tasks.data.formats.webgpt import WEBGPT
from tasks.data.records import recognise
from tasks.data.sources import read_rows

FORMATS = {
    form.name: form
    for form in (
        WEBGPT,
        SHP,
        OASST,
        ULTRAFEEDBACK,
        NECTAR,
        HELPSTEER,
        HELPSTEER2_PREFERENCE,
        HELPSTEER3,
        SAFERLHF,
        KTO,
        SCORED_PAIRS,
    )
}
"""Forms beside plain pairs of `chosen` and `rejected`, by name."""


def find_format(source: PreferenceSource) -> Format | None:
    """Return the form of a source, told from the columns of its first row or named; None: plain pairs.

    Raises:
        ConfigurationError: There is no such source, its columns fit no form or not the named one, or it lacks a
            dimension or has one that says nothing.
    """
    where, values = next(read_rows(source))
    form = _told(source, set(values), where) if source.format is None else _named(source, set(values), where)
    dimensions = form.dimensions if form else ()
    if source.dimension is None and (form is None or form.default or not dimensions):
        return form
    if source.dimension not in dimensions:
        what = form.name if form else "plain pairs"
        remedy = f"set it to {' or '.join(dimensions)}" if dimensions else "leave it out"
        raise ConfigurationError(f"{source.path}: dimension = {source.dimension!r}, but its rows are {what}: {remedy}")
    return form


def _told(source: PreferenceSource, columns: set[str], where: str) -> Format | None:
    """Return the form that columns tell."""
    if {"chosen", "rejected"} <= columns:
        return None
    fitting = [form for form in FORMATS.values() if form.is_told and form.columns <= columns]
    if len(fitting) > 1:
        names = " or ".join(form.name for form in fitting)
        raise ConfigurationError(f"{where} may be {names}: name it as `format` of the source {source.path}")
    if not fitting:
        recognise(columns, "preferences", where)
    return next(iter(fitting), None)


def _named(source: PreferenceSource, columns: set[str], where: str) -> Format:
    """Return the form that a source names."""
    form = FORMATS.get(source.format or "")
    if form is None:
        raise ConfigurationError(
            f"{source.path}: format = {source.format!r} is none of {', '.join(FORMATS)}; leave it out for plain pairs"
        )
    if missing := sorted(form.columns - columns):
        raise ConfigurationError(
            f"{where} has no column {', '.join(missing)}, which the format {form.name} of {source.path} needs: name "
            "its own format, or none"
        )
    return form
