"""Tables of completions and rewards that grow, of a tiny policy and reward model."""

import pyarrow as pa

from tasks.config.settings import Decoding, ScoringConfig
from tasks.data.records import prompt_id
from tasks.sampling.drawing import Request
from tasks.score import score_completions
from tasks.store.artifacts import Artifact, Provenance
from tasks.store.drafts import Draft
from tasks.store.folders import Store
from tasks.store.parquet import table_bytes
from tasks.store.schemas import SCHEMAS, format_digest, rows_digest
from tasks.store.slices import Slice

PROMPTS = 9
ORDER = [("prompt_id", "ascending"), ("completion_id", "ascending")]


def draft(store: Store, stage: str, key: str) -> Draft:
    return Draft(store, Provenance(stage=stage, version=1, key=key))


def prompts(store: Store, number: int = PROMPTS) -> Artifact:
    conversations = [[{"role": "user", "content": f"{'so ' * (n % 4)}is it {n} ?"}] for n in range(number)]
    rows = [{"prompt_id": prompt_id(messages), "messages": messages, "source": "test"} for messages in conversations]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])
    files = {"rows.parquet": table_bytes(table, "prompts")}
    return draft(store, "prompts", f"p{number}").commit("prompts", files, format_digest(rows_digest(table)))


def decoding(k: int, part_size: int = 2, engine: str = "transformers") -> Decoding:
    return Decoding(k=k, max_new_tokens=4, part_size=part_size, engine=engine)


def rows_of(slices: list[Slice]) -> list[dict]:
    return pa.concat_tables([slice_.read() for slice_ in slices]).sort_by(ORDER).to_pylist()


def score(store: Store, reward_model: Artifact, drawn: Artifact, key: str = "r", number: int = PROMPTS) -> Artifact:
    out = draft(store, "score", key)
    return score_completions.body(out, reward_model, drawn, prompts(store, number), ScoringConfig())


def completions(requests: list[Request]) -> pa.Table:
    rows = [
        {
            "prompt_id": own.prompt_id,
            "completion_id": number,
            "completion": f"{own.prompt_id} {number}",
            "token_ids": [number],
            "num_tokens": 1,
            "finish_reason": "stop",
        }
        for own in requests
        for number in range(own.first, own.first + own.number)
    ]
    return pa.Table.from_pylist(rows, SCHEMAS["completions"])
