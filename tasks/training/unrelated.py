"""What KTO's reference point is measured on: each prompt with a completion of another prompt.

z0 = max(0, mean of log pi(y'|x)/pi_ref(y'|x)) over prompts x with completions y' of other prompts (arXiv:2402.01306,
section 4.1). TRL's `KTOTrainer` takes it over a batch whose completions are moved on by one. Here y' is the first
completion of the next prompt, in the order of their ids, so that it depends on neither packs nor parts; and the mean is
over the completions of an optimizer step, each with its prompt's y', which is forwarded once a prompt without gradient.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.config.errors import ConfigurationError
from tasks.training.dpo_examples import sequence_id
from tasks.training.reference import WITHOUT_REF, read_examples
from tasks.training.trained_model import write_tables

NO_COMPLETION_ID = -1
"""Of a completion of another prompt."""


def add_unrelated(folder: Path, max_length: int) -> None:
    """Add to each example of a folder a completion of another prompt, which is in no pair, and its place.

    Args:
        folder: Has the examples in `examples_without_ref.parquet`.
        max_length: The completion is cut so that prompt and completion have at most as many tokens.

    Raises:
        ConfigurationError: There is one prompt only.
    """
    first = {row["prompt_id"]: row["completions"][0] for row in _rows(folder, ["prompt_id", "completions"])}
    if len(first) < 2:
        raise ConfigurationError(
            f"dpo.loss_type = kto needs pairs of two prompts or more, and there is {len(first)}: its reference point "
            "is measured on completions of other prompts; take more prompts, or another loss"
        )
    ids = sorted(first)
    other = {id_: first[next_] for id_, next_ in zip(ids, [*ids[1:], ids[0]], strict=True)}
    beside = folder / f"with_unrelated-{WITHOUT_REF}"
    write_tables(beside, _extended(folder, other, max_length))
    beside.replace(folder / WITHOUT_REF)


def _rows(folder: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    return (row for table in read_examples(folder) for row in table.select(columns).to_pylist())


def _extended(folder: Path, other: dict[str, list[int]], max_length: int) -> Iterator[pa.Table]:
    for table in read_examples(folder):
        rows = [_extend(row, other[row["prompt_id"]], max_length) for row in table.to_pylist()]
        yield pa.Table.from_pylist(rows, table.schema.append(pa.field("unrelated", pa.int32())))


def _extend(row: dict[str, Any], completion: list[int], max_length: int) -> dict[str, Any]:
    completion = completion[: max_length - len(row["prompt"])]
    name = sequence_id(row["prompt"], tuple(completion))
    if name in row["sequence_ids"]:  # another prompt was answered with the same words
        return row | {"unrelated": row["sequence_ids"].index(name)}
    return row | {
        "completion_ids": [*row["completion_ids"], NO_COMPLETION_ID],
        "completions": [*row["completions"], completion],
        "sequence_ids": [*row["sequence_ids"], name],
        "unrelated": len(row["completions"]),
    }
