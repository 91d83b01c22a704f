"""Small stores to look at and to prune: chains of committed artifacts, and records of the runs that made them."""

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from tasks.inspection.catalog import read_catalog
from tasks.store.artifacts import Artifact, Manifest, Provenance, sha256_of
from tasks.store.folders import Store
from tasks.store.runs import Run, RunRecord, process_of


def hex_of(text: str) -> str:
    return sha256_of(text.encode())


class Origin(NamedTuple):
    """What an output is made of."""

    inputs: Mapping[str, str] = MappingProxyType({})
    parts: Sequence[Artifact] = ()
    keeps: Sequence[Artifact] = ()
    config: Mapping[str, Any] = MappingProxyType({})


NOTHING = Origin()


def output(store: Store, stage: str, name: str, origin: Origin = NOTHING, content: str = "") -> Artifact:
    """Commit a stage's output; its key comes from the name, its digest from the content, which is the name's too."""
    key, data = hex_of(f"{stage} {name}"), (content or f"{stage} {name}").encode()
    provenance = Provenance(stage=stage, version=1, key=key, inputs=dict(origin.inputs), config=dict(origin.config))
    lists = {"parts": origin.parts, "keeps": origin.keeps}
    named = {name: {store.folder_of(part): part.digest for part in own} for name, own in lists.items()}
    manifest = Manifest(kind=stage, digest=sha256_of(data), rows=7, provenance=provenance, **named)
    return store.commit(f"{stage}/{key}", {"data": data}, manifest)


def part(store: Store, name: str, kind: str = "completions", table: str = "t") -> Artifact:
    """Commit a part of a table."""
    provenance = Provenance(stage=kind, version=1, key=hex_of(table))
    manifest = Manifest(kind=kind, digest=hex_of(name), rows=3, provenance=provenance)
    return store.commit(f"tables/{kind}/{hex_of(table)}/{name}", {"rows": name.encode()}, manifest)


def checkpoint(store: Store, of: Artifact, step: int) -> Artifact:
    """Commit a checkpoint of a stage's output."""
    folder = store.folder_of(of)
    provenance = Provenance(stage="checkpoint", version=1, key=folder.rpartition("/")[2])
    manifest = Manifest(kind="checkpoint", digest=hex_of(str(step)), rows=step, provenance=provenance)
    return store.commit(f"checkpoints/{folder}/step-{step}", {"state": b"%d" % step}, manifest)


def record(store: Store, stages: Sequence[Artifact], status: str = "finished", began: float = 0, **facts) -> Run:
    """Write the record of a run of a process that is gone, begun so many hours ago; 0: after all that is there."""
    me, now = process_of(os.getpid()), datetime.now(UTC)
    started = now - timedelta(hours=began) if began else now + timedelta(hours=1)
    gone = {"host": socket.gethostname(), "pid": os.getpid(), "process": f"{me} gone", "updated": now}
    name = f"{now:%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}"
    noted = tuple(store.folder_of(artifact) for artifact in stages)
    written = RunRecord(store, Run(id=name, status=status, started=started, stages=noted, **{**gone, **facts}))
    written._write()
    return written.run


def folders(store: Store) -> set[str]:
    return set(read_catalog(store).entries)


def folder_set(store: Store, *artifacts: Artifact) -> set[str]:
    return {store.folder_of(artifact) for artifact in artifacts}


class Chain(NamedTuple):
    prompts: Artifact
    policy: Artifact
    parts: list[Artifact]
    completions: Artifact
    aligned: Artifact


def chain(store: Store, name: str, shared: list[Artifact] | None = None) -> Chain:
    """Commit four stages, and two parts beside those that are shared."""
    prompts = output(store, "load_prompts", name)
    policy = output(store, "train_sft", name, Origin({"base_model": hex_of("outside")}))
    parts = [*(shared or []), part(store, f"{name}-1"), part(store, f"{name}-2")]
    inputs = {"policy": policy.digest, "prompts": prompts.digest}
    completions = output(store, "sample_completions", name, Origin(inputs, parts))
    aligned = output(store, "train_dpo", name, Origin({"policy": policy.digest, "completions": completions.digest}))
    return Chain(prompts, policy, parts, completions, aligned)


def everything(store: Store, chain: Chain) -> set[str]:
    return folder_set(store, chain.prompts, chain.policy, *chain.parts, chain.completions, chain.aligned)
