"""How long a sequence may be: the context of a model, and the examples that are short enough."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.config.errors import ConfigurationError
from tasks.pipeline.progress import Progress

COUNTS_AFTER_PADDING = frozenset(
    {
        *("altclip", "bridgetower", "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer"),
        *("luke", "markuplm", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
    }
)
"""Model types whose positions begin after the padding index (`create_position_ids_from_input_ids` in transformers)."""
LENGTHS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length", "max_sequence_length"),
    *("max_seq_length", "model_max_length"),
)
"""Names under which configurations say how many positions there are, first come first served."""
PIECE = 1 << 10
"""Rows that are tokenized at once: their tokens are Python numbers, ten times as large as in a table."""
TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
"""Names under which a configuration of several models holds the language model's configuration."""


def context_length(folder: Path) -> int:
    """Return the longest sequence of a model in tokens; a very large number where its configuration names none.

    A tokenizer's `model_max_length` does not count: it says how its texts were cut. Families that begin to count
    positions after the padding index, as RoBERTa does, hold so many fewer than their configuration says: of 514
    positions, 512 are for tokens. Others, as OPT, add theirs to the number that it says.
    """
    config = _text_settings(json.loads((folder / "config.json").read_text()))
    length = next((int(config[name]) for name in LENGTHS if isinstance(config.get(name), int | float)), 0)
    if length <= 0:  # none, or -1 for relative positions
        return 1 << 30
    is_rotary = config.get("position_embedding_type") == "rotary"
    if config.get("model_type") not in COUNTS_AFTER_PADDING or is_rotary:
        return length
    padding = 1 if config["model_type"] == "mpnet" else config.get("pad_token_id")
    return length - 1 - (1 if padding is None else int(padding))


def _text_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a configuration, the defaults of its class and its language model's part included."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type")
    if kind in CONFIG_MAPPING:
        names = CONFIG_MAPPING[kind].attribute_map
        config = CONFIG_MAPPING[kind]().to_dict() | {names.get(name, name): value for name, value in config.items()}
    inner = next((config[name] for name in TEXT_PARTS if isinstance(config.get(name), dict)), None)
    return config if inner is None else {**config, **_text_settings(inner)}


class ShortExamples:
    """Examples without those that are too long, a few tables at a time; counts both as it goes."""

    def __init__(self, tables: Iterable[pa.Table], sequences: list[list[str]], longest: int) -> None:
        """Take the examples; none is asked for yet.

        Args:
            tables: Tokenized examples.
            sequences: The columns that make up each sequence, e.g. prompt and completion.
            longest: Most tokens of a sequence to keep.
        """
        self.tables, self.sequences, self.longest = tables, sequences, longest
        self.kept = self.too_long = 0

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield the examples in their order.

        Raises:
            ConfigurationError: All are too long; known once all are read.
        """
        for table in self.tables:
            fits = are_short(table, self.sequences, self.longest)
            kept = int(fits.sum())
            self.kept, self.too_long = self.kept + kept, self.too_long + len(fits) - kept
            if kept:
                yield table.filter(pa.array(fits))
        if not self.kept:
            raise _all_too_long(self.too_long, self.longest)


def check_any_short(tables: Iterable[pa.Table], sequences: list[list[str]], longest: int) -> None:
    """Refuse examples that are all too long; tables are read until a short example is found.

    Raises:
        ConfigurationError: All are longer than `longest` tokens.
    """
    examples = 0
    for table in tables:
        if are_short(table, sequences, longest).any():
            return
        examples += table.num_rows
    raise _all_too_long(examples, longest)


def are_short(table: pa.Table, sequences: list[list[str]], longest: int) -> np.ndarray:
    """Return, for each example, whether all its sequences have at most `longest` tokens."""
    lengths = [sum(pc.list_value_length(table[column]).to_numpy() for column in columns) for columns in sequences]
    fits: np.ndarray = np.all(np.stack(lengths) <= longest, axis=0)
    return fits


def single_rows(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows of tables, each as a table of one row."""
    return (table.slice(place, 1) for table in tables for place in range(table.num_rows))


def in_pieces(table: pa.Table, what: str) -> Iterator[pa.Table]:
    """Yield the rows of a table in order, `PIECE` at a time, and show as `what` how many are dealt with."""
    progress = Progress(what, table.num_rows)
    for start in range(0, table.num_rows, PIECE):
        yield table.slice(start, PIECE)
        progress.move_to(min(start + PIECE, table.num_rows))
    progress.close()


def _all_too_long(examples: int, longest: int) -> ConfigurationError:
    return ConfigurationError(
        f"all {examples} examples are longer than {longest} tokens, the smaller of max_length and the model's context: "
        "raise max_length, or name a model with a longer context"
    )
