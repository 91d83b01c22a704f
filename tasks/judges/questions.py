"""What a judge is asked: the texts of ratings and comparisons. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tasks.config.judges import HIGHEST, LOWEST, JudgeConfig
from tasks.data.conversations import Messages
from tasks.judges.verdicts import SINGLE, read_ratings, read_sides

INSTRUCTION = (
    "A good answer does what the user asks for; it is correct, helpful and clear, and neither longer nor shorter than "
    "it needs to be."
)
RATING = """You judge the last answer of a conversation, impartially. Do not let its length or its style mislead you.

{rubric}

[Start of the conversation]
{conversation}
[End of the conversation]

{reference}[Start of the answer]
{answer}
[End of the answer]

Explain your judgment in a few sentences first. {format}"""
COMPARISON = """You judge which of two answers to a conversation is better, impartially. Let neither their order nor \
their length mislead you.

{rubric}

[Start of the conversation]
{conversation}
[End of the conversation]

{reference}[Start of answer A]
{answer_a}
[End of answer A]

[Start of answer B]
{answer_b}
[End of answer B]

Explain your judgment in a few sentences first. {format}"""
REFERENCE = "[Start of a reference answer]\n{}\n[End of the reference answer]\n\n"
AGAIN = "Your last answer could not be read. "
"""Said before the form, where a question is asked once more."""


class Judged(NamedTuple):
    """An answer to be judged: a completion and its prompt."""

    messages: Messages
    completion: str
    reference: str | None = None


@dataclass(frozen=True)
class Question:
    """One thing that a judge is asked, and how its answer is read."""

    messages: Messages
    form: str
    """What the end of the answer must be like; said once more where it was not."""
    read: Callable[[str], Any]
    """Returns the verdict of an answer; None: unreadable."""
    about: str
    """Names the row in errors."""

    def asked(self, attempt: int) -> Messages:
        """Return the messages of an attempt; the second one says that the first was not read."""
        if not attempt:
            return self.messages
        *before, last = self.messages
        return [*before, {**last, "content": f"{last['content']}\n\n{AGAIN}{self.form}"}]


def user(text: str) -> Messages:
    """Return a conversation of one user turn: some models know no system message."""
    return [{"role": "user", "content": text}]


def conversation_text(messages: Messages) -> str:
    """Return a conversation as text."""
    return "\n\n".join(f"### {message['role'].capitalize()}:\n{message['content']}" for message in messages)


def rating_question(config: JudgeConfig, judged: Judged, about: str) -> Question:
    """Return the question for the rating of an answer, one for each criterion."""
    names = tuple(config.criteria) or SINGLE
    form = _form(names, f"your rating from {LOWEST} to {HIGHEST}", ("[[5]]", f"[[{LOWEST} to {HIGHEST}]]"))
    shared = _shared(config, judged)
    text = (config.template or RATING).format(**shared, format=form, answer=judged.completion)
    return Question(user(text), form, lambda answer: _mean(config, read_ratings(answer, names)), about)


def pair_question(config: JudgeConfig, first: Judged, second: str, about: str) -> Question:
    """Return the question which of two answers is better, the first shown first; read as a list, one a principle."""
    names = tuple(str(number) for number, _ in enumerate(config.principles, 1)) or SINGLE
    form = _form(
        names, "[[A]] if answer A is better, [[B]] if answer B is better, [[C]] for a tie", ("[[A]]", "[[A, B or C]]")
    )
    shared = _shared(config, first)
    text = (config.pair_template or COMPARISON).format(
        **shared, format=form, answer_a=first.completion, answer_b=second
    )
    return Question(user(text), form, lambda answer: read_sides(answer, names), about)


def rubric_text(config: JudgeConfig) -> str:
    """Return what makes an answer good: the principles, numbered from 1, the criteria by weight, or the instruction."""
    if config.principles:
        lines = (f"{number}: {each.text}" for number, each in enumerate(config.principles, 1))
        return "Judge by each of these principles by itself:\n" + "\n".join(lines)
    if not config.criteria:
        return config.instruction or INSTRUCTION
    total = sum(each.weight for each in config.criteria.values())
    lines = (
        f"{name} ({each.weight / total:.0%} of the whole): {each.description}" for name, each in config.criteria.items()
    )
    return "Judge by these criteria:\n" + "\n".join(lines)


def _shared(config: JudgeConfig, judged: Judged) -> dict[str, str]:
    """Return the placeholders that ratings and comparisons have."""
    asked = [message["content"] for message in judged.messages if message["role"] == "user"]
    return {
        "rubric": rubric_text(config),
        "conversation": conversation_text(judged.messages),
        "question": asked[-1] if asked else "",
        "reference": REFERENCE.format(judged.reference) if config.reference and judged.reference else "",
    }


def _form(names: Sequence[str], what: str, examples: tuple[str, str]) -> str:
    """Return how an answer must end: with an example, or with lines to fill in, which are no verdict when repeated."""
    example, blank = examples
    if tuple(names) == SINGLE:
        return f"Then end with {what}, once and in double brackets, such as {example}"
    lines = "\n".join(f"{name}: {blank}" for name in names)
    return f"Then end with a line for each of these, in this form, with {what}, in double brackets:\n{lines}"


def _mean(config: JudgeConfig, ratings: list[float] | None) -> float | None:
    """Return the mean of the ratings by the weights of the criteria."""
    if ratings is None:
        return None
    weights = [each.weight for each in config.criteria.values()] or [1.0]
    return sum(weight * rating for weight, rating in zip(weights, ratings, strict=True)) / sum(weights)
