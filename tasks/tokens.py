"""Tokens: one way to turn conversations into ids, used by every stage.

A prompt is rendered with the tokenizer's chat template and tokenized; a completion is tokenized by itself and ends with
EOS; a sequence is the two lists joined. So a prompt has the same ids whatever follows it, with one BOS at most.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import ConfigurationError
from tasks.records import Messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content }}\n\n"
    "{% elif message.role == 'user' %}Human:\n{{ message.content }}\n\n"
    "{% else %}Assistant:\n{{ message.content }}{{ eos_token }}\n\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:\n{% endif %}"
)
"""Given to tokenizers without a chat template: ends in a newline, so that no token spans prompt and completion."""

TEXT_TEMPLATE = "{{ bos_token or '' }}{% for message in messages %}{{ message.content }}{% endfor %}"
"""For models that continue text: the messages joined, with nothing around them."""


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a model folder, without network.

    Raises:
        ConfigurationError: There is no tokenizer, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"{folder} has no tokenizer that loads ({error}): save one with save_pretrained"
        ) from error


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", messages: Messages) -> list[int]:
    """Return the ids of a conversation up to where the completion begins.

    Raises:
        ConfigurationError: The chat template refuses the conversation.
    """
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        roles = [message["role"] for message in messages]
        raise ConfigurationError(f"the chat template refuses a conversation with roles {roles}: {error}") from error
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode_completion(tokenizer: "PreTrainedTokenizerBase", completion: str) -> list[int]:
    """Return the ids of a finished completion, EOS included.

    Tokenized after a newline that is then taken away: a sentence-piece tokenizer would otherwise begin it with a space
    that the text does not have.
    """
    anchor, joined = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("\n", "\n" + completion))
    if joined[: len(anchor)] == anchor:
        return [*joined[len(anchor) :], tokenizer.eos_token_id]
    return [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def context_length(folder: Path) -> int:
    """Return the longest sequence of a model in tokens; a very large number where its configuration names none."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    config = {**config, **config.get("text_config", {})}
    names = ("max_position_embeddings", "n_positions", "max_seq_len")
    return next((int(config[name]) for name in names if config.get(name)), 1 << 30)


def keep_short(table: pa.Table, sequences: list[list[str]], max_length: int) -> tuple[pa.Table, int]:
    """Drop examples with a sequence longer than `max_length` tokens; return the rest and how many went.

    Args:
        table: Tokenized examples.
        sequences: The columns that make up each sequence, e.g. prompt and completion.
        max_length: Longest sequence to keep.

    Raises:
        ConfigurationError: None is left.
    """
    fits = are_short(table, sequences, max_length)
    if not fits.any():
        raise ConfigurationError(
            f"all {table.num_rows} examples are longer than max_length = {max_length} tokens: raise it"
        )
    return table.filter(pa.array(fits)), int((~fits).sum())


def are_short(table: pa.Table, sequences: list[list[str]], max_length: int) -> np.ndarray:
    """Return, for each example, whether all its sequences have at most `max_length` tokens."""
    lengths = [sum(pc.list_value_length(table[column]).to_numpy() for column in columns) for columns in sequences]
    fits: np.ndarray = np.all(np.stack(lengths) <= max_length, axis=0)
    return fits
