"""Questions put to an endpoint, many at once: what the store has is taken from there, and each answer kept at once."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tasks.config.judges import JudgeConfig
from tasks.judges.answers import Answer, AnswerCache, request_id
from tasks.judges.budget import Budget
from tasks.judges.endpoint import Endpoint
from tasks.judges.questions import Question
from tasks.judges.stats import JudgeStats
from tasks.judges.verdicts import is_echo

ATTEMPTS = (0, 1)
"""An answer that cannot be read is asked for once more."""


class Wave:
    """Some questions, asked in one event loop."""

    def __init__(self, config: JudgeConfig, cache: AnswerCache, budget: Budget, stats: JudgeStats) -> None:
        """Nothing is asked yet."""
        self.config, self.cache, self.stats = config, cache, stats
        self.endpoint = Endpoint(config, budget)
        self.places, self.telling = asyncio.Semaphore(config.concurrency), asyncio.Lock()
        self.known: dict[str, Answer] = {}
        self.coming: dict[str, asyncio.Task[Answer]] = {}
        """Id -> answer under way: a question that is there twice is asked once."""
        self.failure: BaseException | None = None
        """The first one; what follows from it is not told."""

    async def run(self, questions: Sequence[Question], tell: Callable[[Any], None]) -> list[Any]:
        """Return what was read of each answer, None where it was not readable.

        After an error no further question is asked, and none again. Those under way are waited for: they are paid for.

        Raises:
            ConfigurationError: See `Endpoint.answer`.
            StoreError: An answer could not be kept.
        """
        ids = [request_id(self.config, each.asked(attempt), attempt) for each in questions for attempt in ATTEMPTS]
        self.known = self.cache.find(set(ids))
        async with self.endpoint:
            found = await asyncio.gather(*(self._verdict(each, tell) for each in questions), return_exceptions=True)
        if self.failure is not None:
            raise self.failure
        return found

    async def _verdict(self, question: Question, tell: Callable[[Any], None]) -> Any:
        try:
            async with self.places:
                if self.failure is not None:
                    return None
                verdict = await self._read(question)
            async with self.telling:
                await asyncio.to_thread(tell, verdict)  # Prefect's client would not wait within an event loop
        except BaseException as error:  # whatever it is, others must not ask on; it is raised again
            self.failure = self.failure or error
            self.endpoint.ending.set()
            raise
        return verdict

    async def _read(self, question: Question) -> Any:
        for attempt in ATTEMPTS:
            answer = await self._answer(question, attempt)
            asked = "\n".join(message["content"] for message in question.asked(attempt))
            if not is_echo(answer.text, asked) and (verdict := question.read(answer.text)) is not None:
                return verdict
            self.stats.asked_again += attempt == 0
        self.stats.note_unreadable(question.about, answer.text)
        return None

    async def _answer(self, question: Question, attempt: int) -> Answer:
        """Return an answer from the store, or from another question that is the same, or from the endpoint."""
        messages = question.asked(attempt)
        id_ = request_id(self.config, messages, attempt)
        if id_ in self.known:
            self.stats.cached += 1
            self.stats.note_model(self.known[id_])
            return self.known[id_]
        if id_ in self.coming:
            self.stats.cached += 1
        else:
            self.coming[id_] = asyncio.create_task(self._ask(id_, messages, question.about))
        return await asyncio.shield(self.coming[id_])

    async def _ask(self, id_: str, messages: list[dict[str, str]], about: str) -> Answer:
        answer = await self.endpoint.answer(messages, about)
        await asyncio.to_thread(self.cache.keep, id_, answer)
        self.stats.asked += 1
        self.stats.note_model(answer)
        return answer
