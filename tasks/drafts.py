"""What a stage's output is named by: its stage key, and the draft that will be committed under it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tasks.artifacts import Artifact, Content, Manifest, Provenance
from tasks.sections import Section
from tasks.storage import Store


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


def provenance_of(stage: str, version: int, arguments: Mapping[str, Any]) -> Provenance:
    """Return what an output is made from: artifacts count by digest, sections by the fields that decide the output."""
    inputs = {name: value.digest for name, value in arguments.items() if isinstance(value, Artifact)}
    rest = {name: value for name, value in arguments.items() if name not in inputs and value is not None}
    decides = {name: value.key_fields() if isinstance(value, Section) else value for name, value in rest.items()}
    config = {name: plain(value) for name, value in rest.items()}
    key = stage_key(stage, version, decides, inputs)
    return Provenance(stage=stage, version=version, key=key, inputs=inputs, config=config)


def plain(value: Any) -> Any:
    """Return an argument of a stage as JSON can write it."""
    return value.model_dump(mode="json") if isinstance(value, Section | Artifact) else value


class Draft:
    """A stage's output on its way: where it will be committed and what it is made from."""

    def __init__(self, store: Store, provenance: Provenance, writes_to: Store | None = None) -> None:
        """Name the output; nothing is written yet. `writes_to` is where it goes in place of the store it reads."""
        self.store = store
        self.provenance = provenance
        self.writes_to = writes_to or store

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
            **facts: The manifest's rows, stats and parts.

        Raises:
            StoreError: Something could not be written; there is no manifest then.
        """
        if (found := self.find()) is not None:
            return found
        manifest = Manifest(kind=kind, digest=digest, provenance=self.provenance, **facts)
        return self.writes_to.commit(self.folder, files, manifest)
