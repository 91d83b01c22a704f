"""Where an artifact comes from: its inputs, theirs, and so on down to data files and models from outside."""

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.config.errors import ConfigurationError
from tasks.inspection.catalog import Catalog, Entry
from tasks.store.artifacts import Provenance
from tasks.store.folders import Store

SHORTEST = 6


def find_entry(catalog: Catalog, prefix: str) -> Entry:
    """Return the output of a stage whose digest or stage key begins with these digits.

    Raises:
        ConfigurationError: The prefix is too short, or fits none or several.
    """
    if len(prefix) < SHORTEST:
        raise ConfigurationError(f"{prefix!r} is too short: give at least {SHORTEST} digits of a digest or a stage key")
    fits = [e for e in catalog.select("stage") if e.digest.startswith(prefix) or key_of(e).startswith(prefix)]
    if not fits:
        raise ConfigurationError(f"no artifact has a digest or a stage key that begins with {prefix!r}: list the store")
    if len(fits) > 1:
        listing = "".join(f"\n       {e.folder}, digest {e.digest[:16]}, made {e.made}" for e in fits)
        raise ConfigurationError(
            f"{len(fits)} artifacts begin with {prefix!r}; give more digits, or a stage key:{listing}"
        )
    return fits[0]


def key_of(entry: Entry) -> str:
    """Return the stage key of a stage's output."""
    return entry.folder.rpartition("/")[2]


def trace(store: Store, catalog: Catalog, entry: Entry) -> dict[str, Any]:
    """Return the tree of what an artifact was made from.

    Returns:
        `stage`, `digest`, `where`, `made`, `settings` (name -> value), `damage`, `parts` and `keeps` (what it is made
        of, and what served to make it: table -> count and rows) and `inputs`: name -> tree. What comes a second time is
        only named there, with `repeated`. A data file, a model from outside, and what is no longer in the store have no
        inputs.
    """
    return _trace(store, catalog, entry, set())


def _trace(store: Store, catalog: Catalog, entry: Entry, seen: set[str]) -> dict[str, Any]:
    repeated = entry.folder in seen
    seen.add(entry.folder)
    made = entry.made.isoformat() if entry.made else ""
    node = {
        "stage": entry.folder.partition("/")[0],
        "digest": entry.digest,
        "where": f"{store.uri}/{entry.folder}",
        "made": made,
        "damage": entry.damage,
    }
    if repeated:
        return {**node, "repeated": True}
    if entry.manifest is None:
        return node
    provenance, inputs = entry.manifest.provenance, {}
    for name, digest in provenance.inputs.items():
        if digest:
            source = _source_of(catalog, entry, digest)
            inputs[name] = _trace(store, catalog, source, seen) if source else _outside(provenance, name, digest)
    parts, keeps = (_parts(catalog, named) for named in (entry.manifest.parts, entry.manifest.keeps))
    settings = dict(settings_of(provenance.config))
    return {**node, "settings": settings, "parts": parts, "keeps": keeps, "inputs": inputs}


def _source_of(catalog: Catalog, entry: Entry, digest: str) -> Entry | None:
    """Return the output that an input's digest names: the last one made before it was used, else the first."""
    found = [source for source in catalog.with_digest(digest) if source.digest != entry.digest]
    before = [source for source in found if source.order <= entry.order]
    return before[-1] if before else next(iter(found), None)


def _outside(provenance: Provenance, name: str, digest: str) -> dict[str, Any]:
    """Return the end of a chain: content that was read from outside of the store, or is gone from it."""
    path = source_path(provenance) if name in ("source", "model") else None
    return {"stage": "data" if name == "source" else name, "digest": digest, "where": path or "not in this store"}


def source_path(provenance: Provenance) -> str | None:
    """Return the path that a stage read from outside of the store, where its settings name it."""
    paths = dict(_paths(provenance.config))
    for name in (provenance.stage.removeprefix("load_"), "evaluation_prompts", "prompts", "source"):
        if name in paths:
            return paths[name]
    return None


def _paths(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if value == "added":
            yield name, f"{name} added to this store"
        elif isinstance(value, Mapping) and "path" in value:
            yield name, str(value["path"])
        elif isinstance(value, Mapping):
            yield from _paths(value)


def settings_of(config: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings that are set as `section.field` and value."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from settings_of(value, f"{within}{name}.")
        elif value not in (None, [], ""):
            yield f"{within}{name}", value


def _parts(catalog: Catalog, parts: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return, for each table, how many of its parts an artifact has, and their rows."""
    tables: dict[str, dict[str, int]] = {}
    for folder in parts:
        counts = tables.setdefault(folder.rpartition("/")[0], {"parts": 0, "rows": 0, "missing": 0})
        part = catalog.entries.get(folder)
        counts["parts"] += 1
        counts["rows"] += part.manifest.rows if part and part.manifest else 0
        counts["missing"] += part is None
    return tables
