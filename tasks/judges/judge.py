"""A judge: a language model that rates answers, or says which of two is better."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from tasks.config.errors import ConfigurationError
from tasks.config.judges import JudgeConfig
from tasks.data.conversations import Messages
from tasks.judges.answers import AnswerCache
from tasks.judges.asking import Wave
from tasks.judges.budget import Budget, cost_of
from tasks.judges.endpoint import key_of
from tasks.judges.questions import Judged, Question, pair_question, rating_question
from tasks.judges.stats import JudgeStats
from tasks.judges.verdicts import both_orders, by_priority
from tasks.pipeline.pace import Tell
from tasks.store.folders import Store

Hear = Callable[[Any], None]
"""Called with each verdict, as soon as it is there."""
WAVE = 512
"""Questions between two looks at what other processes have asked; their answers make a part of the table."""


class Judge:
    """Asks an endpoint; what the store has is not asked again."""

    def __init__(self, config: JudgeConfig, store: Store, expected: int = 0) -> None:
        """Name the judge; nothing is asked yet.

        Args:
            config: The judge, and what it is asked.
            store: Keeps its answers.
            expected: Questions that will be asked in several calls, of which `max_unreadable` is a share; 0: one call.
        """
        self.config, self.cache, self.expected = config, AnswerCache(store, config), expected
        self.asked = self.unreadable = 0
        self.stats, self.budget = JudgeStats(config.model), Budget(config)

    def rewards(self, answers: Sequence[Judged], tell: Tell = lambda rewards: None) -> np.ndarray:
        """Return the mean rating of each answer by the weights of the criteria, (answers,) float64; NaN: unreadable.

        Args:
            answers: The answers, each with its prompt.
            tell: Hears of each reward.

        Raises:
            ConfigurationError: The judge has principles, which compare two answers; or see `ask`.
        """
        if self.config.principles:
            raise ConfigurationError("judge.principles compare two answers: give judge.criteria to rate each by itself")
        questions = [
            rating_question(self.config, each, f"answer {n}{_to(each.messages)}") for n, each in enumerate(answers, 1)
        ]
        found = self.ask(questions, lambda reward: tell(np.array([_number(reward)])))
        return np.array([_number(reward) for reward in found], np.float64)

    def compare(
        self,
        rows: Sequence[tuple[Messages, str, str]],
        references: Sequence[str | None] | None = None,
        tell: Hear = lambda verdict: None,
    ) -> np.ndarray:
        """Return what the first answer of each pair wins, (rows,) float64: 1, 0, 0.5 for a tie, NaN: unreadable.

        Each pair is asked about in both orders, and is a tie where the two verdicts disagree. Of several principles,
        each has verdicts of its own, and `by_priority` decides. Equal answers are a tie, and not asked about.

        Args:
            rows: Prompt, first and second answer.
            references: Of each row, a reference answer.
            tell: Hears of each verdict, two a pair.

        Raises:
            ConfigurationError: See `ask`.
        """
        given = references or [None] * len(rows)
        asked = [place for place, (_, first, second) in enumerate(rows) if first != second]
        pairs = (_both(self.config, rows[place], given[place], f"pair {place + 1}") for place in asked)
        questions = list(chain.from_iterable(pairs))
        found = self.ask(questions, tell)
        wins = np.full(len(rows), 0.5)
        wins[asked] = [self._win(*sides) for sides in zip(found[0::2], found[1::2], strict=True)]
        return wins

    def ask(self, questions: Sequence[Question], tell: Hear = lambda verdict: None) -> list[Any]:
        """Return what was read of the answer to each question, None where it was unreadable twice.

        Args:
            questions: What to ask, in any number.
            tell: Hears of each verdict.

        Raises:
            ConfigurationError: The key is not set, the endpoint refuses or does not answer, the budget is spent, or
                more answers are unreadable than `max_unreadable` lets pass.
            StoreError: The store cannot be read or written.
        """
        if questions:
            key_of(self.config)
        found: list[Any] = []
        self.asked += len(questions)
        for start in range(0, len(questions), WAVE):
            with self.cache.alone():
                try:
                    found += asyncio.run(self._wave().run(questions[start : start + WAVE], tell))
                finally:
                    self.cache.fold()
            self.unreadable += sum(verdict is None for verdict in found[start:])
            self._check_readable()
        return found

    def _check_readable(self) -> None:
        """Refuse verdicts where more are unreadable by now than may be of all that are asked for."""
        asked = max(self.asked, self.expected)
        if self.unreadable > self.config.max_unreadable * asked:
            raise ConfigurationError(
                f"judge {self.config.model}: {self.unreadable} answers are unreadable by now, also after a second time "
                f"of asking; of {asked}, judge.max_unreadable = {self.config.max_unreadable:g} lets "
                f"{int(self.config.max_unreadable * asked)} pass. The first is of {self.stats.example}. Take a model "
                "that follows the form, raise judge.max_answer_tokens where answers are cut, or judge.max_unreadable"
            )

    def figures(self) -> dict[str, Any]:
        """Return what was asked, cached, unreadable and spent so far."""
        spent = self.budget.spent
        tokens = {"prompt_tokens": spent.prompt, "completion_tokens": spent.completion}
        return {**self.stats.figures(), **tokens, "cost": cost_of(self.config, spent)}

    def _wave(self) -> Wave:
        self.budget = Budget(self.config, self.budget.spent)  # its condition belongs to one event loop
        return Wave(self.config, self.cache, self.budget, self.stats)

    def _win(self, shown: list[float] | None, swapped: list[float] | None) -> float:
        if shown is None or swapped is None:
            return np.nan
        wins = [both_orders(one, other) for one, other in zip(shown, swapped, strict=True)]
        return by_priority(wins, [each.priority for each in self.config.principles] or [1])


def _both(config: JudgeConfig, row: tuple[Messages, str, str], reference: str | None, about: str) -> Iterator[Question]:
    """Yield the question about a pair in both orders."""
    messages, first, second = row
    about += _to(messages)
    yield pair_question(config, Judged(messages, first, reference), second, about)
    yield pair_question(config, Judged(messages, second, reference), first, f"{about}, swapped")


def _to(messages: Messages) -> str:
    """Return the beginning of what is answered, for errors."""
    return f" to {messages[-1]['content'][:40]!r}" if messages else ""


def _number(reward: float | None) -> float:
    return np.nan if reward is None else reward
