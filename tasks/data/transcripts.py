r"""Read transcripts: texts in which speakers take turns. Pure: reads no file.

Anthropic's HH has "\n\nHuman: Hi\n\nAssistant: Hello". Others write "User:" or single line breaks; they are told by how
the text opens, and only where both speakers speak.
"""

import re

Turns = list[dict[str, str]]

_SPEAKERS = {"Human": "user", "User": "user", "Assistant": "assistant"}
_HH = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_DIALECTS = (
    _HH,
    re.compile(r"(?:\A\s*|\n\n)(User|Assistant):"),
    re.compile(r"(?:\A\s*|\n)(Human|Assistant):"),
    re.compile(r"(?:\A\s*|\n)(User|Assistant):"),
)
_OPENING = re.compile(r"\s*(Human|User|Assistant):")
_PERSON = re.compile(r"\n(Human|User):")
_RENDERED = re.compile(
    r"(?:(?:<s>|<bos>|<\|begin_of_text\|>)\s*)?"
    r"(?:<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|\[INST\]|<\|(?:system|user|prompter)\|>"
    r"|### (?:Human|User) ?:)"
)


def is_rendered(text: str) -> bool:
    """Return whether a text is a prompt as a model's template renders it: ChatML, Llama, Gemma, Vicuna, Alpaca, ..."""
    text = text.strip()
    vicuna = text.startswith("USER:") and "ASSISTANT:" in text
    alpaca = text.endswith("### Response:") and "### Instruction:" in text
    return vicuna or alpaca or _RENDERED.match(text) is not None


def find_turns(text: str) -> Turns | None:
    """Return the turns of a text that opens with a speaker; None where it is no transcript."""
    if not _OPENING.match(text):
        return None
    for dialect in _DIALECTS:
        before, *parts = dialect.split(text)
        if not before and len(set(parts[::2])) == 2:
            return _turns(parts)
    return hh_turns(text)[1] if text.startswith(("\n\nHuman:", "\n\nAssistant:")) else None


def hh_turns(text: str) -> tuple[str, Turns]:
    """Return what is before HH's first marker, and the turns."""
    before, *parts = _HH.split(text)
    return before, _turns(parts)


def asks_late(text: str) -> bool:
    """Return whether a transcript that waits for the assistant begins after other text."""
    return text.rstrip().endswith("\nAssistant:") and _PERSON.search(text) is not None


def merge_turns(turns: Turns) -> Turns:
    """Join consecutive turns of one role with a blank line: chat templates demand that roles alternate."""
    merged: Turns = []
    for turn in turns:
        if merged and merged[-1]["role"] == turn["role"]:
            merged[-1] = {"role": turn["role"], "content": f"{merged[-1]['content']}\n\n{turn['content']}"}
        else:
            merged.append(turn)
    return merged


def _turns(parts: list[str]) -> Turns:
    """Return a message for each speaker and the text that follows, less the space between the two."""
    return [
        {"role": _SPEAKERS[speaker], "content": content.removeprefix(" ")}
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]
