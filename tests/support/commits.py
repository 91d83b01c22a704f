"""A model and a table to commit to a store, and what is read back."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.store import parquet
from tasks.store.artifacts import Artifact, Content, Manifest, Provenance, files_digest
from tasks.store.folders import Store
from tasks.store.manifests import read_bytes, read_files
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest

PROVENANCE = Provenance(
    stage="train_sft", version=3, key="a" * 64, inputs={"base_model": "b" * 64}, config={"sft": {"seed": 7}}
)
MODEL = {"config.json": b'{"hidden_size": 4}', "model.safetensors": bytes(range(256)) * 40, "tokenizer.json": b"{}\n"}
REWARDS = pa.table(
    {"prompt_id": ["p", "p", "q"], "completion_id": [0, 1, 0], "reward": [0.5, -1.0, 2.0]}, schema=SCHEMAS["rewards"]
)
EVERY_STORE = pytest.mark.parametrize("store_uri", ["file", "s3", "moto"], indirect=True)


def commit_model(store: Store, folder: str = "m/1", files: Mapping[str, Content] = MODEL) -> Artifact:
    return store.commit(folder, files, Manifest(kind="model", digest=files_digest(files), provenance=PROVENANCE))


def commit_rewards(store: Store) -> Artifact:
    digest = format_digest(rows_digest(REWARDS))
    files = {"rows.parquet": parquet.table_bytes(REWARDS, "rewards")}
    return store.commit("r/1", files, Manifest(kind="rewards", digest=digest, rows=3, provenance=PROVENANCE))


def read_all(artifact: Artifact) -> dict[str, bytes]:
    return {name: read_bytes(artifact, name) for name in read_files(artifact)}


def local_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
