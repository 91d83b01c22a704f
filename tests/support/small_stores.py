"""Small artifacts and rows of completions for stores that are made to fail."""

import pyarrow as pa

from tasks.store.artifacts import Artifact, Manifest, Provenance, files_digest
from tasks.store.folders import Store
from tasks.store.schemas import SCHEMAS

PROVENANCE = Provenance(stage="train_sft", version=1, key="a" * 64)


def content_of(number: int) -> dict[str, bytes]:
    return {"config.json": b'{"number": %d}' % number, "model.safetensors": b"%05d" % number * 4_000}


def commit(store: Store, number: int, folder: str = "m") -> Artifact:
    files = content_of(number)
    manifest = Manifest(kind="model", digest=files_digest(files), rows=number, provenance=PROVENANCE)
    return store.commit(f"{folder}/{number}", files, manifest)


def completions(*prompt_ids: str) -> pa.Table:
    rows = [
        {
            "prompt_id": prompt_id,
            "completion_id": i,
            "completion": f"answer {i} to {prompt_id}",
            "token_ids": list(range(200)),
            "num_tokens": 200,
            "finish_reason": "stop",
        }
        for prompt_id in prompt_ids
        for i in range(4)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["completions"])
