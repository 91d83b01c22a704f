"""Tokens: one way to turn conversations into ids, used by every stage.

A prompt is rendered with the tokenizer's chat template and tokenized; what the template makes of the completion after
it is tokenized by itself; a sequence is the two lists joined. So a prompt has the same ids whatever follows it, with
one BOS at most, and a turn ends as the template ends it: `encode_completion` says what a policy writes, `encode_turn`
what a reward model reads, `end_ids` where sampling stops.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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

PROBE: Messages = [{"role": "user", "content": "Hm"}]
"""A conversation that shows what a template does."""
COUNTS_AFTER_PADDING = frozenset(
    {
        *(
            "camembert",
            "data2vec-text",
            "esm",
            "ibert",
            "layoutlmv3",
            "lilt",
            "longformer",
            "luke",
            "markuplm",
            "mpnet",
        ),
        *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
    }
)
"""Model types whose positions begin after the padding index (`create_position_ids_from_input_ids` in transformers)."""

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
    return list(tokenizer(_render(tokenizer, messages, prompt=True), add_special_tokens=False)["input_ids"])


def encode_completion(
    tokenizer: "PreTrainedTokenizerBase", completion: str, messages: Messages | None = None
) -> list[int]:
    """Return the ids of a completion up to the token that ends its turn: what a policy is trained to write.

    Args:
        tokenizer: With the chat template.
        completion: Text; an end of turn that is written out at its end counts once.
        messages: The conversation that it completes; None: any.

    Raises:
        ConfigurationError: The chat template refuses the conversation.
    """
    ids, end = encode_turn(tokenizer, completion, messages), turn_end(tokenizer).token_id
    return ids[: len(ids) - ids[::-1].index(end)]


def encode_turn(tokenizer: "PreTrainedTokenizerBase", completion: str, messages: Messages | None = None) -> list[int]:
    """Return the ids of a completion and all that follows it in its turn: what a reward model reads.

    That is what the chat template makes of the finished conversation after the prompt, ended with EOS where the
    template ends a turn with no special token. Where the finished conversation does not begin with the prompt, it is
    the completion and the template's end of a turn.

    Tokenized after a newline that is then taken away: a sentence-piece tokenizer would otherwise begin it with a space
    that the text does not have.
    """
    end, conversation = turn_end(tokenizer), messages or PROBE
    text = without_end(completion, (end.text.strip(), tokenizer.decode([end.token_id]), tokenizer.eos_token))
    rest = _after_prompt(tokenizer, conversation, text) or text + end.text
    if end.is_added:
        rest = rest.removesuffix(end.text) + end.text
    anchor, joined = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in ("\n", "\n" + rest))
    if joined[: len(anchor)] == anchor:
        return list(joined[len(anchor) :])
    return list(tokenizer(rest, add_special_tokens=False)["input_ids"])


class TurnEnd(NamedTuple):
    """How a tokenizer's chat template ends the assistant's turn."""

    text: str
    """All that follows the completion, such as `<|im_end|>` and a newline."""
    token_id: int
    """The token that ends it, by which sampling stops."""
    is_added: bool
    """The template writes no end, so that EOS is added."""


def turn_end(tokenizer: "PreTrainedTokenizerBase") -> TurnEnd:
    """Return how the assistant's turn ends, as the template shows on a conversation of two words."""
    return _turn_end(tokenizer, str(tokenizer.chat_template), tokenizer.eos_token_id)


def end_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Return the tokens that end a completion: the template's end of a turn, and EOS."""
    return {turn_end(tokenizer).token_id, tokenizer.eos_token_id}


def without_end(completion: str, ends: Sequence[str]) -> str:
    """Return a completion without ends of turn that are written out at its end."""
    while found := next((end for end in ends if end and completion.rstrip().endswith(end)), None):
        completion = completion.rstrip().removesuffix(found)
    return completion


@functools.lru_cache(maxsize=16)
def _turn_end(tokenizer: "PreTrainedTokenizerBase", template: str, eos: int) -> TurnEnd:
    word = PROBE[0]["content"]
    try:
        whole = _render(tokenizer, [*PROBE, {"role": "assistant", "content": word}])
    except (ConfigurationError, ValueError):  # no template, or one that takes no assistant
        whole = word
    text = whole[whole.rindex(word) + len(word) :] if word in whole else ""
    known = tokenizer.added_tokens_decoder.items()
    special = {eos, *tokenizer.all_special_ids, *(id_ for id_, token in known if token.special)}
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = next((id_ for id_ in ids if id_ in special), None)
    return TurnEnd(tokenizer.eos_token, eos, True) if found is None else TurnEnd(text, found, False)


def _after_prompt(tokenizer: "PreTrainedTokenizerBase", messages: Messages, completion: str) -> str | None:
    """Return what follows the prompt in the finished conversation; None where that does not begin with the prompt."""
    try:
        prompt = _render(tokenizer, messages, prompt=True)
        whole = _render(tokenizer, [*messages, {"role": "assistant", "content": completion}])
    except (ConfigurationError, ValueError):
        return None
    return whole.removeprefix(prompt) if whole.startswith(prompt) else None


def _render(tokenizer: "PreTrainedTokenizerBase", messages: Messages, prompt: bool = False) -> str:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False))
    except TemplateError as error:
        roles = [message["role"] for message in messages]
        raise ConfigurationError(f"the chat template refuses a conversation with roles {roles}: {error}") from error


def context_length(folder: Path) -> int:
    """Return the longest sequence of a model in tokens; a very large number where its configuration names none.

    Families that begin to count positions after the padding index, as RoBERTa does, hold so many fewer than their
    configuration says: 514 positions are 512 tokens.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    config = {**config, **config.get("text_config", {})}
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length", "max_sequence_length")
    length = next((int(config[name]) for name in names if config.get(name)), 1 << 30)
    return length - _padding_index(config) - 1 if config.get("model_type") in COUNTS_AFTER_PADDING else length


def _padding_index(config: dict[str, Any]) -> int:
    """Return the padding index of a configuration that may leave it at its class's default."""
    found = config.get("pad_token_id")
    return 1 if found is None else int(found)


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
