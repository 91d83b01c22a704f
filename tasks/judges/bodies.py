"""The body of a chat completion, as endpoints really send it. Pure."""

import json
from typing import Any

from tasks.judges.answers import Answer

MOST_TOKENS = 2**31 - 1
"""Most tokens that a count may say; a higher one is none."""


class Unanswered(ValueError):
    """An answer that is none: half of it, or something else than JSON of a chat completion."""


def read_body(text: str) -> Answer:
    """Return the answer in the body of a chat completion; one without a text is an empty answer.

    Raises:
        Unanswered: It is no chat completion.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unanswered(f"a body that is no JSON: {text[:80]!r}") from error
    if not isinstance(body, dict) or not isinstance(choices := body.get("choices"), list):
        raise Unanswered(f"a body that is no chat completion: {text[:80]!r}")
    choice = _dict(choices[0] if choices else None)
    usage = _dict(body.get("usage"))
    return Answer(
        text=_text(_dict(choice.get("message")).get("content")),
        finish_reason=_stored(str(choice.get("finish_reason") or "none")),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        model=_stored(str(body.get("model") or "")),
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(content: Any) -> str:
    """Return the text of a message's content: a string, or a list of parts."""
    if isinstance(content, list):
        texts = (_dict(part).get("text") for part in content)
        content = "".join(text for text in texts if isinstance(text, str))
    return _stored(content) if isinstance(content, str) else ""


def _stored(text: str) -> str:
    """Return a text without lone surrogates, which cannot be stored."""
    return text.encode("utf-8", "replace").decode()


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None
