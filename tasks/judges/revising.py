"""Answers that a judge criticises by principles, and rewrites (Constitutional AI, arXiv:2212.08073)."""

import re
from collections.abc import Sequence

from tasks.config.errors import ConfigurationError
from tasks.config.judges import JudgeConfig
from tasks.judges.judge import Hear, Judge
from tasks.judges.questions import Judged, Question, conversation_text, user
from tasks.judges.verdicts import without_thoughts

CRITIQUE = """Here is a conversation and an answer to it.

[Start of the conversation]
{conversation}
[End of the conversation]

[Start of the answer]
{answer}
[End of the answer]

A good answer keeps to these principles. Where they conflict, the earlier one holds.
{principles}

{form}"""
CRITIQUE_FORM = (
    "Say where the answer falls short of the principles, and what would have to change. Do not rewrite it yet."
)
REVISION_FORM = (
    "Now write the answer as it should be: the whole of it, addressed to the user, without a word about the changes, "
    "once between <answer> and </answer>."
)
_REVISION = re.compile(r"<answer>(.*?)</answer>", re.S)


def read_revision(text: str) -> str | None:
    """Return what stands between `<answer>` and `</answer>`; None where that is not there exactly once, or is empty."""
    found = _REVISION.findall(without_thoughts(text))
    return found[0].strip() or None if len(found) == 1 else None


def revise(
    judge: Judge, answers: Sequence[Judged], rounds: int = 1, tell: Hear = lambda text: None
) -> list[str | None]:
    """Return each answer as the judge rewrites it; None where a critique or a revision was unreadable.

    Args:
        judge: One with principles.
        answers: The answers, each with its prompt.
        rounds: How often each is criticised and rewritten, every time from the last revision.
        tell: Hears of each critique and each revision.

    Raises:
        ConfigurationError: The judge has no principles, `rounds` is below 1, or see `Judge.ask`.
    """
    if not judge.config.principles:
        raise ConfigurationError("judge.principles is empty: answers are revised by principles, name some")
    if rounds < 1:
        raise ConfigurationError(f"rounds = {rounds} must be at least 1: an answer is revised once or more")
    texts: list[str | None] = [each.completion for each in answers]
    for _ in range(rounds):
        left = [place for place, text in enumerate(texts) if text is not None]
        asked = [_critique_question(judge.config, answers[place], texts[place] or "", place) for place in left]
        critiques = judge.ask(asked, tell)
        told = [(place, asked[n], critiques[n]) for n, place in enumerate(left) if critiques[n] is not None]
        revised = judge.ask([_revision_question(question, critique) for _, question, critique in told], tell)
        texts = [None] * len(answers)
        for (place, *_), text in zip(told, revised, strict=True):
            texts[place] = text
    return texts


def _critique_question(config: JudgeConfig, judged: Judged, text: str, place: int) -> Question:
    ordered = sorted(config.principles, key=lambda each: each.priority)
    asked = CRITIQUE.format(
        conversation=conversation_text(judged.messages),
        answer=text,
        principles="\n".join(f"{number}. {each.text}" for number, each in enumerate(ordered, 1)),
        form=CRITIQUE_FORM,
    )
    return Question(user(asked), CRITIQUE_FORM, lambda answer: without_thoughts(answer) or None, f"answer {place + 1}")


def _revision_question(asked: Question, critique: str) -> Question:
    messages = [*asked.messages, {"role": "assistant", "content": critique}, *user(REVISION_FORM)]
    return Question(messages, REVISION_FORM, read_revision, f"the revision of {asked.about}")
