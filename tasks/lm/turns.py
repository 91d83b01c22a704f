"""How a conversation is rendered and how a turn ends: the model's own chat template says so, to every stage alike.

A prompt is the conversation with the generation prompt. A completion is what the template makes of the finished
conversation after that prompt; where the finished conversation does not begin with the prompt, as where thoughts are
left out of the history, it is the text and the end of a turn.
"""

import functools
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import TemplateError

from tasks.config.errors import ConfigurationError
from tasks.data.conversations import Messages
from tasks.pipeline.progress import log

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

TEXT_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}{{ message.content }}"
    "{% if loop.last and message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
"""For models that continue text: the messages joined, with nothing between them."""

PROBE: Messages = [{"role": "user", "content": "Hm"}]
"""A conversation on which a template shows what it writes."""
TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError)
"""What a template raises where it refuses a conversation, or does not foresee it."""


class TurnEnd(NamedTuple):
    """How a chat template ends the assistant's turn."""

    text: str | None
    """All that it writes after the completion, such as `<|im_end|>` and a newline; None: it writes no completion."""
    token_id: int
    """The token that ends the turn: the first special one after the completion, EOS where there is none."""
    is_written: bool
    """Whether the template writes that token; where it does not, a policy is trained to write EOS all the same."""
    spelled: tuple[str, ...]
    """How the end may be spelled out in data."""


def render(tokenizer: "PreTrainedTokenizerBase", messages: Messages, prompt: bool = False) -> str:
    """Return a conversation as the chat template writes it.

    Args:
        tokenizer: With the chat template.
        messages: The conversation.
        prompt: End with the generation prompt.

    Raises:
        ConfigurationError: The chat template refuses the conversation.
    """
    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False))
    except TEMPLATE_ERRORS as error:
        roles = [message["role"] for message in messages]
        what = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
        raise ConfigurationError(f"the chat template refuses a conversation with roles {roles}: {what}") from error


def finished(tokenizer: "PreTrainedTokenizerBase", messages: Messages, completion: str) -> str | None:
    """Return a conversation with its completion as the chat template writes it.

    None where the template refuses answers, or leaves them out.
    """
    if turn_end(tokenizer).text is None:
        return None
    try:
        return render(tokenizer, [*messages, {"role": "assistant", "content": completion}])
    except ConfigurationError:
        return None


def after_prompt(tokenizer: "PreTrainedTokenizerBase", messages: Messages, completion: str) -> str:
    """Return what a finished conversation says after the prompt: the completion in its turn, the turn's end included.

    Raises:
        ConfigurationError: The chat template refuses the prompt.
    """
    whole = finished(tokenizer, messages, completion)
    if whole is not None:
        prompt = render(tokenizer, messages, prompt=True)
        if whole.startswith(prompt) and whole != prompt:
            return whole.removeprefix(prompt)
    if tokenizer.chat_template:
        _log_once_per_template(str(tokenizer.chat_template))
    return completion + (turn_end(tokenizer).text or str(tokenizer.eos_token))


def turn_end(tokenizer: "PreTrainedTokenizerBase") -> TurnEnd:
    """Return how the assistant's turn ends, as the chat template shows on a conversation of two words."""
    return _turn_end(tokenizer, str(tokenizer.chat_template), tokenizer.eos_token_id, len(tokenizer))


def end_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Return the tokens that end a completion: the template's end of a turn, and EOS."""
    return {turn_end(tokenizer).token_id, tokenizer.eos_token_id}


def without_end(tokenizer: "PreTrainedTokenizerBase", completion: str) -> str:
    """Return a completion without ends of a turn that are spelled out at its end, as exported data often have them."""
    ends = turn_end(tokenizer).spelled
    while found := next((end for end in ends if completion.rstrip().endswith(end)), None):
        completion = completion.rstrip().removesuffix(found)
    return completion


def ends_within(tokenizer: "PreTrainedTokenizerBase", completion: str) -> bool:
    """Tell whether a completion spells an end of a turn before its own end: the tokenizer would read it as one."""
    text = without_end(tokenizer, completion)
    spelled = any(end in text for end in turn_end(tokenizer).spelled)
    return spelled and not end_ids(tokenizer).isdisjoint(tokenizer(text, add_special_tokens=False)["input_ids"])


@functools.lru_cache(maxsize=16)
def _turn_end(tokenizer: "PreTrainedTokenizerBase", template: str, eos: int, size: int) -> TurnEnd:
    """Return what follows the word that the assistant says in a conversation of two words.

    The end depends on the other arguments, which may change: they are there for the cache.
    """
    word, text = PROBE[0]["content"], None
    try:
        whole = render(tokenizer, [*PROBE, {"role": "assistant", "content": word}])
        if whole.count(word) > render(tokenizer, PROBE, prompt=True).count(word):
            text = whole[whole.rindex(word) + len(word) :]
    except ConfigurationError:
        pass  # it takes no answers
    marks = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
    marks |= {eos, *tokenizer.all_special_ids}
    ids = tokenizer(text or "", add_special_tokens=False)["input_ids"]
    found = next((id_ for id_ in ids if id_ in marks), None)
    end = eos if found is None else found
    spelled = {(text or "").strip() if found is not None else "", tokenizer.decode([end]).strip(), tokenizer.eos_token}
    return TurnEnd(text, end, found is not None, tuple(sorted(spelled - {""}, key=len, reverse=True)))


@functools.lru_cache(maxsize=64)
def _log_once_per_template(template: str) -> None:
    log(
        "the chat template does not begin a finished conversation with the prompt, so the policy's completions are "
        f"joined to it and ended as a turn ends: {template[:60]!r}..."
    )
