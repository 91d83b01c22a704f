"""Tokens: one way to turn conversations into ids, used by every stage.

A prompt is rendered with the tokenizer's chat template and tokenized, so that it has the same ids whatever follows it,
with one BOS at most. `encode_completion` says what a policy writes after it, up to the token that ends its turn;
`encode_conversation` what a reward model reads, which is all that its template makes of the finished conversation;
`tasks.lm.turns.end_ids` where sampling stops.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.config.errors import ConfigurationError
from tasks.data.conversations import Messages
from tasks.lm.turns import PROBE, after_prompt, finished, render, turn_end, without_end
from tasks.pipeline.progress import track

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 1024
"""Texts tokenized at once, on all cores."""


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a model folder, without network.

    Raises:
        ConfigurationError: There is no tokenizer, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{folder} has no tokenizer that loads ({error}): save one with save_pretrained"
        ) from error


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", messages: Messages) -> list[int]:
    """Return the ids of a conversation up to where the completion begins.

    Raises:
        ConfigurationError: The chat template refuses the conversation.
    """
    return encode(tokenizer, render(tokenizer, messages, prompt=True))


def encode_completion(
    tokenizer: "PreTrainedTokenizerBase", completion: str, messages: Messages | None = None
) -> list[int]:
    """Return the ids of a completion up to the token that ends its turn: what a policy is trained to write.

    What the template writes after that token, such as a newline, is left out: sampling stops before it. EOS follows the
    text where the template ends a turn with no special token.

    Args:
        tokenizer: With the chat template.
        completion: Text; ends of a turn that are spelled out at its end count once.
        messages: The conversation that it completes; None: any.

    Raises:
        ConfigurationError: The chat template refuses the conversation.
    """
    end = turn_end(tokenizer)
    rest = after_prompt(tokenizer, messages or PROBE, without_end(tokenizer, completion))
    if not end.is_written:
        rest = rest.removesuffix(end.text or tokenizer.eos_token)
    ids = _encode_after_newline(tokenizer, rest)
    if not end.is_written or end.token_id not in ids:
        return [*ids, end.token_id]
    return ids[: len(ids) - ids[::-1].index(end.token_id)]


def encode_conversation(tokenizer: "PreTrainedTokenizerBase", messages: Messages, completion: str) -> list[int]:
    """Return the ids of one finished conversation; see `encode_conversations`."""
    return encode_conversations(tokenizer, [(messages, completion)])[0]


def encode_conversations(
    tokenizer: "PreTrainedTokenizerBase", conversations: Sequence[tuple[Messages, str]]
) -> list[list[int]]:
    """Return the ids of finished conversations: what a reward model reads.

    All that the chat template makes of one, what follows the end of the turn included, tokenized as one text: as the
    model's card shows it, and as TRL trains it. Where the template renders no answers, prompt and completion are joined
    and end with EOS.

    Args:
        tokenizer: With the chat template.
        conversations: Prompts, each with a completion; ends of a turn that are spelled out at its end count once.

    Raises:
        ConfigurationError: The chat template refuses a prompt.
    """
    rendered = track("rendering conversations", conversations, len(conversations))
    texts = [finished(tokenizer, messages, without_end(tokenizer, text)) for messages, text in rendered]
    whole = [text for text in texts if text is not None]
    batches = (tokenizer(whole[i : i + BATCH], add_special_tokens=False) for i in range(0, len(whole), BATCH))
    encoded = iter([ids for batch in batches for ids in batch["input_ids"]])
    return [
        list(next(encoded))
        if text is not None
        else encode_prompt(tokenizer, messages) + encode_completion(tokenizer, completion, messages)
        for text, (messages, completion) in zip(texts, conversations, strict=True)
    ]


def tokens_around(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return how many tokens a finished conversation adds to its prompt's and its completion's."""
    word = PROBE[0]["content"]
    parts = encode_prompt(tokenizer, PROBE), _encode_after_newline(tokenizer, word)
    return max(0, len(encode_conversation(tokenizer, PROBE, word)) - sum(map(len, parts)))


def cut_at_prompts(
    prompts: Iterable[list[int]], conversations: Iterable[list[int]]
) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Cut conversations where their prompts end, so that each prompt is computed once.

    Where a token spans that place, as a word does after a space, the cut is before it: what is read stays the same.

    Args:
        prompts: Token ids of each conversation's prompt.
        conversations: Token ids of the whole.

    Returns:
        The different beginnings, the rest of each conversation, and which beginning it has.
    """
    numbers: dict[tuple[int, ...], int] = {}
    rests, beginning_of = [], []
    for prompt, whole in zip(prompts, conversations, strict=True):
        end = min(len(prompt), len(whole) - 1)
        if whole[:end] != prompt[:end]:
            end = next(place for place in range(end) if whole[place] != prompt[place])
        end = max(end, 1)
        beginning_of.append(numbers.setdefault(tuple(whole[:end]), len(numbers)))
        rests.append(whole[end:])
    return [list(ids) for ids in numbers], rests, beginning_of


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Return the ids of a rendered text; special tokens are only where the text spells them."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _encode_after_newline(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Return the ids of a text that does not begin a line of its own.

    Tokenized after a newline that is then taken away: a sentence-piece tokenizer would otherwise begin it with a space
    that the text does not have.
    """
    anchor, joined = encode(tokenizer, "\n"), encode(tokenizer, "\n" + text)
    return joined[len(anchor) :] if joined[: len(anchor)] == anchor else encode(tokenizer, text)
