"""Log-probabilities of completions under the reference, computed once and kept in a table that grows.

A row is found by the tokens of its prompt and completion, within the table of one reference model and one way to
compute. So it serves every later run, whatever its threshold, loss or machine, and none that it does not belong to.
"""

import itertools
import math
import os
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.config.errors import ConfigurationError
from tasks.config.sections import Section
from tasks.config.training import DpoConfig, Dtype
from tasks.models.loading import device, load_policy, model_folder, trusts_remote_code
from tasks.pipeline.jobs import Job, run_job
from tasks.pipeline.progress import Progress, log
from tasks.store.artifacts import Artifact, DamagedArtifactError
from tasks.store.compaction import compact
from tasks.store.drafts import keyed
from tasks.store.filesystem import in_parallel
from tasks.store.folders import Store
from tasks.store.growing import GrowingTable, index_parts, part_name
from tasks.store.manifests import read_manifest
from tasks.store.parquet import read_table
from tasks.store.slices import READ_AHEAD

TABLE_VERSION = 2
WITHOUT_REF = "examples_without_ref.parquet"
"""The examples before they have the reference's log-probabilities."""
PER_COMPLETION = ("completion_ids", "completions", "sequence_ids")
PART = 4096
"""Completions a part: what a crash can lose."""


class Precision(Section):
    """How log-probabilities under a reference are computed."""

    weights: Dtype = "float32"
    computed_in: Dtype = "float32"


class RefLogps(NamedTuple):
    """What the reference says of the completions of some pairs."""

    by_sequence: dict[str, float]
    """Sequence id -> log pi_ref(y | x), in nats."""
    parts: dict[str, str]
    """Folder -> digest of the table's parts that hold these log-probabilities."""
    forwarded: int
    """Completions that had to be computed."""


def ref_logps_table(store: Store, reference: Artifact, dpo: DpoConfig) -> GrowingTable:
    """Return the table of a reference's log-probabilities, computed as its training computes the policy's."""
    inputs = {"reference_model": reference.digest}
    precision = Precision(weights="float32" if dpo.lora is None else dpo.dtype, computed_in=dpo.dtype)
    decides, config = precision.key_fields(), precision.model_dump()
    return GrowingTable(store, "ref_logps", keyed("ref_logps", TABLE_VERSION, decides, inputs, config))


def find_ref_logps(store: Store, reference: Artifact, dpo: DpoConfig, folder: Path) -> RefLogps:
    """Return the reference's log-probabilities of all completions of the examples; compute the missing ones.

    Args:
        store: Holds the table.
        reference: The policy before the training.
        dpo: Settings of the training.
        folder: Folder with the examples in `examples_without_ref.parquet`.

    Raises:
        DamagedArtifactError: The table holds a part of another reference, or lacks a row after all.
        ConfigurationError: A row is no number: the reference model is broken.
    """
    table = ref_logps_table(store, reference, dpo)
    wanted = sequences_of(folder)
    compact(table, table.look())
    found, parts = look_up(table, wanted)
    if missing := len(wanted) - len(found):
        log(f"log-probabilities under the reference: {missing} completions to compute, {len(found)} are in the store")
        job = Job(
            fit="tasks.training.reference:fit",
            folder=folder,
            model=model_folder(reference),
            store=store.uri,
            table=table.provenance,
            config=dpo.model_dump(mode="json"),
            trust_remote_code=trusts_remote_code(reference),
        )
        run_job(job)
        found, parts = look_up(table, wanted)
    index_parts(store, parts)
    if lost := wanted - found.keys():
        raise DamagedArtifactError(f"{table.folder} lacks {len(lost)} completions, first {min(lost)}: run again")
    return RefLogps(found, parts, missing)


def look_up(table: GrowingTable, wanted: set[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the log-probability of each wanted sequence that the table has, and the parts that hold them.

    Raises:
        DamagedArtifactError: A part belongs to another table.
        ConfigurationError: A row is no number: the reference model is broken.
    """
    found: dict[str, float] = {}
    parts: dict[str, str] = {}
    ids = pa.array(wanted, pa.string())
    for part, rows in in_parallel(lambda part: (part, _read_wanted(table, part, ids)), table.parts(), READ_AHEAD):
        new = {id_: logps for id_, logps in rows if id_ not in found}
        if not all(map(math.isfinite, new.values())):
            raise ConfigurationError(
                f"{part.uri} holds log-probabilities that are no numbers: the reference model is broken, name "
                "another in sft.ready_model, or train it anew"
            )
        if new:
            found |= new
            parts[table.store.folder_of(part)] = part.digest
    return found, parts


def _read_wanted(table: GrowingTable, part: Artifact, ids: pa.Array) -> list[tuple[str, float]]:
    """Return the rows of a part with some ids: id and log-probability."""
    if read_manifest(part.uri).provenance.key != table.provenance.key:
        raise DamagedArtifactError(f"{part.uri} was computed for another reference model or data type: delete it")
    rows = read_table(part, ["sequence_id", "logps"])
    rows = rows.filter(pc.is_in(rows["sequence_id"], ids))
    return list(zip(rows["sequence_id"].to_pylist(), rows["logps"].to_pylist(), strict=True))


def fit(job: Job) -> None:
    """Compute the log-probabilities that the job's table lacks, part by part; several processes share the examples."""
    import torch

    from tasks.lm.logps import CompletionLogps
    from tasks.training.saving import weight_dtype

    assert job.table is not None
    dpo, table = DpoConfig.model_validate(job.config), GrowingTable(Store(job.store), "ref_logps", job.table)
    known, _ = look_up(table, {id_ for row in _own_examples(job.folder) for id_ in row["sequence_ids"]})
    todo = sum(id_ not in known for row in _own_examples(job.folder) for id_ in row["sequence_ids"])
    model = load_policy(job.model, weight_dtype(dpo), job.trust_remote_code).to(device())
    computed_in = None if dpo.dtype == "float32" else getattr(torch, dpo.dtype)
    logps = CompletionLogps(model, autocast=computed_in)
    if logps.not_shared:
        log(f"each completion is forwarded with its prompt: {logps.not_shared}")
    progress = Progress("reference log-probabilities", todo)
    for rows in _cut_into_parts(_own_examples(job.folder), known):
        completions = [ids for row in rows for ids in row["completions"]]
        prompt_of = [number for number, row in enumerate(rows) for _ in row["completions"]]
        found = logps([row["prompt"] for row in rows], completions, prompt_of, lambda own: progress.advance(len(own)))
        table.append(*_name_and_rows(rows, found))
    progress.close()


def read_examples(folder: Path) -> Iterator[pa.Table]:
    """Yield the examples of a folder, some at a time."""
    with pq.ParquetFile(folder / WITHOUT_REF) as file:
        for batch in file.iter_batches(batch_size=1024):
            yield pa.Table.from_batches([batch])


def sequences_of(folder: Path) -> set[str]:
    """Return the ids of all prompts with completions that the examples of a folder hold."""
    return {id_ for rows in read_examples(folder) for ids in rows["sequence_ids"].to_pylist() for id_ in ids}


def _own_examples(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the examples that this process computes: of n processes, each takes every n-th example."""
    rank, processes = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    examples = (row for table in read_examples(folder) for row in table.to_pylist())
    return itertools.islice(examples, rank, None, processes)


def _cut_into_parts(examples: Iterator[dict[str, Any]], known: Container[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield examples without the known completions, in parts of at least `PART` completions but the last."""
    part: list[dict[str, Any]] = []
    held = 0
    for example in examples:
        new = [i for i, id_ in enumerate(example["sequence_ids"]) if id_ not in known]
        if new:
            part.append(example | {name: [example[name][i] for i in new] for name in PER_COMPLETION})
            held += len(new)
        if held >= PART:
            yield part
            part, held = [], 0
    if part:
        yield part


def _name_and_rows(examples: list[dict[str, Any]], logps: np.ndarray) -> tuple[str, pa.Table]:
    """Return the name of a table's part and its rows."""
    sequence_ids = [id_ for example in examples for id_ in example["sequence_ids"]]
    columns = {
        "prompt_id": [example["prompt_id"] for example in examples for _ in example["completions"]],
        "completion_id": [id_ for example in examples for id_ in example["completion_ids"]],
        "sequence_id": sequence_ids,
        "logps": logps,
    }
    return part_name(sequence_ids), pa.table(columns)
