"""Arrow schemas of the stored tables, and the digest of a table's rows."""

import hashlib
import json
from collections.abc import Iterable

import pyarrow as pa

MESSAGES = pa.list_(pa.struct([pa.field("role", pa.string(), False), pa.field("content", pa.string(), False)]))


def _schema(version: int, **columns: pa.DataType) -> pa.Schema:
    """Build a schema; a column whose name ends in `_or_null` may be null."""
    fields = [
        pa.field(name.removesuffix("_or_null"), kind, name.endswith("_or_null")) for name, kind in columns.items()
    ]
    return pa.schema(fields, metadata={"version": str(version)})


SCHEMAS: dict[str, pa.Schema] = {
    "prompts": _schema(
        1,
        prompt_id=pa.string(),
        messages=MESSAGES,
        source=pa.string(),
        reference_completion_or_null=pa.string(),
        metadata_or_null=pa.string(),
    ),
    "demonstrations": _schema(1, prompt_id=pa.string(), messages=MESSAGES, completion=pa.string()),
    "preferences": _schema(
        1,
        prompt_id=pa.string(),
        messages=MESSAGES,
        chosen=pa.string(),
        rejected=pa.string(),
        margin_or_null=pa.float64(),
    ),
    "added_preferences": _schema(
        1,
        preference_id=pa.string(),
        prompt_id=pa.string(),
        messages=MESSAGES,
        chosen=pa.string(),
        rejected=pa.string(),
        margin_or_null=pa.float64(),
        annotator_or_null=pa.string(),
        source=pa.string(),
        metadata_or_null=pa.string(),
    ),
    "completions": _schema(
        1,
        prompt_id=pa.string(),
        completion_id=pa.int32(),
        completion=pa.string(),
        token_ids=pa.list_(pa.int32()),
        num_tokens=pa.int32(),
        finish_reason=pa.string(),
    ),
    "rewards": _schema(1, prompt_id=pa.string(), completion_id=pa.int32(), reward=pa.float32()),
    "combined_rewards": _schema(
        1,
        prompt_id=pa.string(),
        completion_id=pa.int32(),
        reward=pa.float32(),
        passes=pa.bool_(),
        rewards=pa.map_(pa.string(), pa.float32()),
        terms=pa.map_(pa.string(), pa.float32()),
    ),
    "ref_logps": _schema(
        1, prompt_id=pa.string(), completion_id=pa.int32(), sequence_id=pa.string(), logps=pa.float64()
    ),
    "pairs": _schema(
        1,
        prompt_id=pa.string(),
        chosen_id=pa.int32(),
        rejected_id=pa.int32(),
        chosen_reward=pa.float32(),
        rejected_reward=pa.float32(),
        reward_gap=pa.float32(),
        preference_prob=pa.float32(),
    ),
    "evaluation": _schema(
        2,
        policy=pa.string(),
        prompt_id=pa.string(),
        completion_id=pa.int32(),
        completion=pa.string(),
        reward_name=pa.string(),
        reward_or_null=pa.float64(),
    ),
    "held_out_rewards": _schema(1, prompt_id=pa.string(), chosen_reward=pa.float64(), rejected_reward=pa.float64()),
    "comparison": _schema(
        1,
        arm=pa.string(),
        seed=pa.int64(),
        model=pa.string(),
        kl=pa.float64(),
        reward=pa.float64(),
        reference_reward=pa.float64(),
        pairs=pa.int64(),
        completions=pa.int64(),
        tokens=pa.int64(),
        seconds=pa.float64(),
    ),
    "predictions": _schema(1, name=pa.string(), predicted=pa.float64(), low=pa.float64(), high=pa.float64()),
    "judgments": _schema(
        1,
        request_id=pa.string(),
        text=pa.string(),
        finish_reason=pa.string(),
        prompt_tokens_or_null=pa.int64(),
        completion_tokens_or_null=pa.int64(),
        model=pa.string(),
    ),
    "benchmarks": _schema(
        1,
        policy=pa.string(),
        benchmark=pa.string(),
        figure=pa.string(),
        value_or_null=pa.float64(),
        low_or_null=pa.float64(),
        high_or_null=pa.float64(),
        rows=pa.int64(),
    ),
    "benchmark_answers": _schema(
        1,
        policy=pa.string(),
        benchmark=pa.string(),
        measure=pa.string(),
        messages=MESSAGES,
        completion=pa.string(),
        value_or_null=pa.float64(),
    ),
    "training_log": _schema(1, step=pa.int64(), metric=pa.string(), value=pa.float64()),
}
"""Kind of table -> schema; the version stands in the schema's metadata."""

_MODULUS = 1 << 256
_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_DIGEST_ROWS = 1 << 12
"""Rows of a digest that are Python objects at once."""


def rows_digest(table: pa.Table) -> int:
    """Return the sum, modulo 2^256, of the SHA-256 of every row, written as JSON with floats as their bits.

    A multiset hash (Clarke et al. 2003, MSet-Add-Hash): rows in another order, or cut into other parts, have the same
    digest, so the history of a growing table does not show in its keys. Parts add up: see `add_digests`.
    """
    names = sorted(table.column_names)
    line = "{" + ",".join(_JSON(name).replace("%", "%%") + ":%s" for name in names) + "}"  # a row's JSON
    batches = table.select(names).to_batches(max_chunksize=_DIGEST_ROWS)
    rows = (row for batch in batches for row in zip(*map(_cells, batch.columns), strict=True))
    hashes = (hashlib.sha256((line % row).encode()).digest() for row in rows)
    return add_digests(int.from_bytes(digest, "big") for digest in hashes)


def _cells(column: pa.Array) -> Iterable[str]:
    """Return the JSON of each value of a column; a float is written as its bits, integers all at once."""
    if pa.types.is_floating(column.type):
        column = column.view(f"int{column.type.bit_width}")
    values = column.to_pylist()
    if pa.types.is_integer(column.type) and values:
        return _JSON(values)[1:-1].split(",")
    return map(_JSON, values)


def add_digests(digests: Iterable[int]) -> int:
    """Return the digest of all rows of disjoint sets of rows, from the sets' digests."""
    return sum(digests) % _MODULUS


def format_digest(digest: int) -> str:
    """Return a digest as 64 hexadecimal digits."""
    return f"{digest:064x}"
