"""One request to an OpenAI-compatible endpoint: sent again where that may help, in bounded time."""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from tasks.config.errors import ConfigurationError
from tasks.config.judges import JudgeConfig
from tasks.data.conversations import Messages
from tasks.judges.answers import Answer
from tasks.judges.bodies import Unanswered, read_body
from tasks.judges.budget import NO_TOKENS, Budget, Tokens, most_tokens

if TYPE_CHECKING:
    from openai import APIStatusError

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the first time of sending again, at most; doubled each time, up to the longest."""
MOST_PATIENCE = 300.0
"""Seconds of a Retry-After that are waited for; an endpoint that asks for more is an error."""
PASSING = (408, 409, 429)
"""Status of errors that may pass, beside those of the server."""
NEVER_SENT = ("ConnectError", "ConnectTimeout")
"""What httpx raises where there was no connection, and so nothing to pay for."""
REMEDIES = {
    400: "check judge.model, and that its context holds the question and judge.max_answer_tokens",
    401: "set {variable} to a key that holds",
    402: "the balance is used up: raise it with the provider, then run again",
    403: "set {variable} to a key that may use this model",
    404: "check judge.model, and judge.base_url, which mostly ends in /v1",
    429: "the quota is used up: raise it with the provider, then run again",
}
"""Status of errors that do not pass -> what helps; for others, what helps for 400."""


class Endpoint:
    """The endpoint of a judge, open for one event loop."""

    def __init__(self, config: JudgeConfig, budget: Budget) -> None:
        """Name the endpoint; see `__aenter__`."""
        self.config, self.budget = config, budget
        self._stack = AsyncExitStack()
        self.ending = asyncio.Event()
        """Set where another question has failed: nothing more is sent, and nobody waits."""
        self._quiet_until = 0.0
        """No request is sent before, by the clock of `time.monotonic`: the endpoint has asked for a pause."""

    async def __aenter__(self) -> Self:
        """Open connections, which are made when they are used.

        Raises:
            ConfigurationError: The key is not set.
        """
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        http = DefaultAsyncHttpxClient(trust_env=not is_loopback(self.config.base_url))
        client = AsyncOpenAI(
            base_url=self.config.base_url, api_key=key_of(self.config), max_retries=0, timeout=None, http_client=http
        )
        self._client = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close the connections."""
        await self._stack.aclose()

    async def answer(self, messages: Messages, about: str) -> Answer:
        """Return the answer to messages.

        Args:
            messages: What is sent.
            about: Names the row in errors.

        Raises:
            ConfigurationError: The endpoint refuses the request, does not answer however often it is asked, or the
                budget does not suffice.
        """
        problem, wait = "nothing was sent", 0.0
        for number in range(self.config.retries + 1):
            await self._wait(max(wait, (self._quiet_until - time.monotonic()) * random.uniform(1, 1.1)))
            if self.ending.is_set():
                break
            answer, problem, pause = await self._send(messages, about)
            if answer is not None:
                return answer
            wait = pause or min(FIRST_WAIT * float(2**number), LONGEST_WAIT) * random.uniform(0.5, 1)
        raise ConfigurationError(
            f"{self._who(about)} did not answer in {self.config.retries + 1} requests, the last one: "
            f"{self._hidden(problem)}. See "
            "that it is up at judge.base_url and bears judge.concurrency requests at once, then run again: what was "
            "answered is kept"
        )

    async def _wait(self, seconds: float) -> None:
        """Wait, but no longer once another question has failed."""
        with contextlib.suppress(TimeoutError):
            if seconds > 0:
                await asyncio.wait_for(self.ending.wait(), seconds)

    async def _send(self, messages: Messages, about: str) -> tuple[Answer | None, str, float | None]:
        """Return an answer; or None, what was wrong, and the seconds that the endpoint asked for."""
        from openai import APIConnectionError, APIStatusError

        most = most_tokens(self.config, messages)
        await self.budget.reserve(most)
        used = most  # nobody knows what a lost answer has cost
        try:
            async with asyncio.timeout(self.config.timeout_seconds):
                answer = read_body(await self._post(messages))
            used = used_tokens(answer, most)
            return answer, "", None
        except APIStatusError as error:
            used = NO_TOKENS
            return None, f"status {error.status_code}", self._pause(error, about)
        except TimeoutError:
            return None, f"no whole answer within judge.timeout_seconds = {self.config.timeout_seconds:g}", None
        except APIConnectionError as error:
            if type(error.__cause__).__name__ in NEVER_SENT:
                used = NO_TOKENS
            return None, f"{error} ({error.__cause__!r})", None
        except Unanswered as error:
            return None, str(error), None
        finally:
            await self.budget.settle(most, used)

    async def _post(self, messages: Messages) -> str:
        """Return the body of the endpoint's answer."""
        config = self.config
        decoding = {"temperature": config.temperature, "seed": config.seed}
        request: dict[str, Any] = {name: value for name, value in decoding.items() if value is not None}
        request[config.limit_parameter] = config.max_answer_tokens
        response = await self._client.chat.completions.with_raw_response.create(
            model=config.model, messages=messages, **request
        )
        return str(response.text)

    def _pause(self, error: "APIStatusError", about: str) -> float | None:
        """Return the seconds that a refusal asks to wait for, None where it names none, and keep others waiting too.

        Raises:
            ConfigurationError: Sending again would not help, or not soon.
        """
        status, code = error.status_code, getattr(error, "code", None)
        if (status not in PASSING and status < 500) or code == "insufficient_quota":
            remedy = REMEDIES.get(status, REMEDIES[400]).format(variable=self.config.api_key_variable)
            said = self._hidden(_said(error))
            raise ConfigurationError(f"{self._who(about)} refuses with status {status}: {said}: {remedy}")
        pause = retry_after(error.response.headers)
        if pause is not None and pause > MOST_PATIENCE:
            raise ConfigurationError(
                f"{self._who(about)} asks to wait for {pause:.0f} s (status {status}), more than {MOST_PATIENCE:.0f}: "
                "run again then, or lower judge.concurrency; what was answered is kept"
            )
        if pause is not None:
            self._quiet_until = max(self._quiet_until, time.monotonic() + pause)
        return pause

    def _hidden(self, said: str) -> str:
        """Return what an endpoint said without the key, which some repeat."""
        return said if self.config.api_key_variable is None else said.replace(key_of(self.config), "***")

    def _who(self, about: str) -> str:
        return f"judge {self.config.model} at {self.config.base_url}, asked about {about},"


def key_of(config: JudgeConfig) -> str:
    """Return the key of the endpoint from the environment.

    Raises:
        ConfigurationError: The variable is not set, or no key.
    """
    if config.api_key_variable is None:
        return "none"  # the client wants some text
    if not (key := os.environ.get(config.api_key_variable, "").strip()):
        raise ConfigurationError(
            f"judge {config.model} needs the environment variable {config.api_key_variable}: set it to the endpoint's "
            "key where stages compute, or set judge.api_key_variable to null where it wants none"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(
            f"the environment variable {config.api_key_variable} holds something else than printable ASCII, which no "
            "request can carry: copy the key again, without line breaks"
        )
    return key


def is_loopback(url: str) -> bool:
    """Tell whether a URL is on this machine, where no proxy leads."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, given as seconds or as a date; None where there is none to read."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if abs(seconds) < float("inf") else None


def used_tokens(answer: Answer, most: Tokens) -> Tokens:
    """Return the tokens of an answer; the most that they can be where the endpoint does not count."""
    if answer.prompt_tokens is None or answer.completion_tokens is None:
        return most
    return Tokens(answer.prompt_tokens, answer.completion_tokens)


def _said(error: "APIStatusError") -> str:
    """Return what an endpoint said of an error, in short."""
    return " ".join(str(getattr(error, "message", error)).split())[:300]
