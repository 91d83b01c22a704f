"""MT-Bench (arXiv:2306.05685): questions of two turns; the judge rates each answer from 1 to 10 by itself.

A policy answers the first turn, then the second one after its own first answer. Prompts, categories with reference
answers, and temperatures are FastChat's. A verdict that is unreadable twice is left out of the means, as there.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tasks.benchmarks.figures import Answered, Figure, Outcome, Resampling, figure
from tasks.benchmarks.mt_bench_files import JudgePrompt, MtBench, MtQuestion, Turns
from tasks.data.conversations import Messages
from tasks.judges.judge import Hear, Judge
from tasks.judges.questions import Question, user
from tasks.judges.verdicts import read_ratings

NAME = "mt_bench"
TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
"""Category -> temperature of the answers (FastChat, `temperature_config`)."""
OTHER_TEMPERATURE = 0.7
FORM = 'Then end with your rating from 1 to 10, once and in double brackets, such as "Rating: [[5]]"'
AnswerAll = Callable[[Sequence[Messages], Sequence[float]], list[str]]
"""Answers conversations, each at its temperature."""


def answer_questions(questions: Sequence[MtQuestion], answer: AnswerAll) -> dict[str, Turns]:
    """Return a policy's answers to both turns of each question."""
    temperatures = [TEMPERATURES.get(each.category, OTHER_TEMPERATURE) for each in questions]
    first = answer([user(each.turns[0]) for each in questions], temperatures)
    second = answer([second_turn(each, said) for each, said in zip(questions, first, strict=True)], temperatures)
    return {each.id: both for each, both in zip(questions, zip(first, second, strict=True), strict=True)}


def second_turn(question: MtQuestion, said: str) -> Messages:
    """Return the conversation that ends with the second turn."""
    return [*user(question.turns[0]), {"role": "assistant", "content": said}, *user(question.turns[1])]


def grading_question(bench: MtBench, question: MtQuestion, answers: Turns, turn: int, about: str) -> Question:
    """Return what the judge is asked about the answer to a turn, 1 or 2."""
    name = f"single{'-math' if question.references else ''}-v1{'-multi-turn' if turn == 2 else ''}"
    prompt = bench.prompts[name]
    messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return Question([*messages, *user(judge_text(prompt, question, answers, turn))], FORM, _rating, about)


def judge_text(prompt: JudgePrompt, question: MtQuestion, answers: Turns, turn: int) -> str:
    """Return the judge's prompt about the answer to a turn."""
    values = {f"ref_answer_{number}": text for number, text in enumerate(question.references or (), 1)}
    if turn == 1:
        return prompt.template.format(question=question.turns[0], answer=answers[0], **values)
    values |= {f"question_{number}": text for number, text in enumerate(question.turns, 1)}
    return prompt.template.format(**values, **{f"answer_{number}": text for number, text in enumerate(answers, 1)})


def rate(judge: Judge, bench: MtBench, answers: Mapping[str, Turns], policy: str, tell: Hear) -> np.ndarray:
    """Return the ratings of a policy's answers, (questions, 2); NaN: unreadable.

    Raises:
        ConfigurationError: See `Judge.ask`.
    """
    asked = [
        grading_question(bench, each, answers[each.id], turn, f"turn {turn} of question {each.id} by {policy}")
        for each in bench.questions
        for turn in (1, 2)
    ]
    found = judge.ask(asked, tell)
    return np.array([np.nan if rating is None else rating for rating in found], np.float64).reshape(-1, 2)


def outcome(
    bench: MtBench, answers: Mapping[str, Mapping[str, Turns]], ratings: Mapping[str, np.ndarray], by: Resampling
) -> Outcome:
    """Return the figures of each policy: of both turns, of each turn, and of each category.

    Args:
        bench: The questions.
        answers: Policy -> question -> answers.
        ratings: Policy -> (questions, 2).
        by: How intervals are made: over questions, whose two turns are drawn together.
    """
    figures = [each for policy, rows in ratings.items() for each in policy_figures(bench, policy, rows, by)]
    answered = [
        each
        for policy, rows in ratings.items()
        for question, row in zip(bench.questions, rows, strict=True)
        for each in _answered(policy, question, answers[policy][question.id], row)
    ]
    unread = {policy: int(np.isnan(rows).sum()) for policy, rows in ratings.items()}
    notes = [f"{policy}: {count} verdicts were unreadable and left out" for policy, count in unread.items() if count]
    return Outcome(figures, answered, notes)


def policy_figures(bench: MtBench, policy: str, ratings: np.ndarray, by: Resampling) -> list[Figure]:
    """Return a policy's figures from its ratings, (questions, 2)."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, question in enumerate(bench.questions):
        places[question.category].append(place)
    parts = {"both turns": ratings, "turn 1": ratings[:, :1], "turn 2": ratings[:, 1:]}
    parts |= {category: ratings[own] for category, own in places.items()}
    return [figure((policy, NAME, name), rows, by) for name, rows in parts.items()]


def _answered(policy: str, question: MtQuestion, said: Turns, ratings: np.ndarray) -> list[Answered]:
    conversations = (user(question.turns[0]), second_turn(question, said[0]))
    return [
        Answered(policy, messages, text, f"{NAME} turn {turn}", float(rating))
        for turn, (messages, text, rating) in enumerate(zip(conversations, said, ratings, strict=True), 1)
    ]


def _rating(text: str) -> float | None:
    ratings = read_ratings(text)
    return None if ratings is None else ratings[0]
