"""What a stage's output is named by: its stage key, and the draft that will be committed under it."""

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from tasks.config.sections import Section, key_value, same_in_key
from tasks.store.artifacts import Artifact, Content, Manifest, Provenance
from tasks.store.cost import COST, Cost
from tasks.store.folders import Store


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text on any machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def stage_key(stage: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return the SHA-256 that names a stage's output.

    Args:
        stage: The stage's name.
        version: Bumped when the same inputs would give another output.
        config: The settings that decide the output.
        inputs: Name -> digest of each input.
    """
    parts = {"stage": stage, "version": version, "config": dict(config), "inputs": dict(inputs)}
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def provenance_of(
    stage: str,
    version: int,
    arguments: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    reads: Mapping[str, Collection[str]] | None = None,
) -> Provenance:
    """Return what an output is made from: artifacts count by digest, sections by the fields that decide the output.

    Args:
        stage: The stage's name.
        version: The stage's version.
        arguments: Name -> value of each argument.
        defaults: Arguments that have a default; at their defaults they do not count.
        reads: Section -> the fields of it that the stage reads, where it does not read all.
    """
    reads = reads or {}

    def count(name: str, value: Any) -> Any:
        return value.key_fields(reads.get(name)) if isinstance(value, Section) else key_value(value)

    known = {name: count(name, value) for name, value in (defaults or {}).items()}
    counts = {name: count(name, value) for name, value in arguments.items()}
    given = {
        name: value
        for name, value in arguments.items()
        if name not in known or not same_in_key(counts[name], known[name])
    }
    decides = {name: counts[name] for name, value in given.items() if not isinstance(value, Artifact)}
    inputs = {name: artifact.digest for name, artifact in artifacts_of(given)}
    settings = {name: value for name, value in arguments.items() if value is not None}
    config = {name: plain(value) for name, value in settings.items() if not any(artifacts_of({name: value}))}
    return keyed(stage, version, decides, inputs, config)


def keyed(
    stage: str, version: int, decides: Mapping[str, Any], inputs: Mapping[str, str], config: Mapping[str, Any]
) -> Provenance:
    """Return the provenance of an output, or of a growing table's rows, under the key of what decides it.

    Args:
        stage: Name of the stage or the table.
        version: Its version.
        decides: The settings that decide it.
        inputs: Name -> digest of each input.
        config: All settings, for people to read.
    """
    key = stage_key(stage, version, decides, inputs)
    return Provenance(stage=stage, version=version, key=key, inputs=dict(inputs), config=dict(config))


def artifacts_of(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Artifact]]:
    """Yield name and value of each artifact among a stage's arguments, those within lists and mappings too."""
    for name, value in arguments.items():
        if isinstance(value, Artifact):
            yield name, value
        elif isinstance(value, Mapping):
            yield from artifacts_of({f"{name}.{inner}": item for inner, item in value.items()})
        elif isinstance(value, list | tuple):
            yield from artifacts_of({f"{name}.{number}": item for number, item in enumerate(value)})


def plain(value: Any) -> Any:
    """Return an argument of a stage as JSON can write it."""
    return to_jsonable_python(value)


class Draft:
    """A stage's output on its way: where it will be committed and what it is made from."""

    def __init__(self, store: Store, provenance: Provenance, writes_to: Store | None = None) -> None:
        """Name the output; nothing is written yet. `writes_to` is where it goes in place of the store it reads."""
        self.store = store
        self.provenance = provenance
        self.writes_to = writes_to or store
        self.cost: Cost | None = None

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Measure what the output costs that is computed meanwhile."""
        self.cost = Cost()
        token = COST.set(self.cost)
        try:
            yield
        finally:
            COST.reset(token)

    @property
    def folder(self) -> str:
        """Return the folder of the output, relative to the store."""
        return f"{self.provenance.stage}/{self.provenance.key}"

    def find(self) -> Artifact | None:
        """Return the output where it is already there, complete and undamaged."""
        return self.store.find(self.folder)

    def commit(self, kind: str, files: Mapping[str, Content], digest: str, **facts: Any) -> Artifact:
        """Write the output's files and manifest; an output that is there already stays, since others may have read it.

        Args:
            kind: Kind of the artifact.
            files: Name -> content.
            digest: Names the content.
            **facts: The manifest's rows, stats, parts and keeps.

        Returns:
            What stands in the store afterwards, whoever wrote it.

        Raises:
            StoreError: Something could not be written; there is no manifest then.
        """
        if (found := self.find()) is not None:
            return found
        cost = {} if self.cost is None else self.cost.measure()
        manifest = Manifest(kind=kind, digest=digest, provenance=self.provenance, cost=cost, **facts)
        return self.writes_to.commit(self.folder, files, manifest, replace=False)
