"""What asking a judge may cost: tokens and money, reserved before a request is sent and settled after its answer."""

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from tasks.config.errors import ConfigurationError
from tasks.config.judges import JudgeConfig
from tasks.data.conversations import Messages

OVERHEAD = 256
"""Tokens that a chat template may add to a prompt, beside `PER_MESSAGE` a message."""
PER_MESSAGE = 16


class Tokens(NamedTuple):
    """Tokens of prompts and of answers."""

    prompt: int = 0
    completion: int = 0

    def plus(self, other: "Tokens", sign: int = 1) -> "Tokens":
        """Return the sum, or the difference where the sign is -1."""
        return Tokens(self.prompt + sign * other.prompt, self.completion + sign * other.completion)


NO_TOKENS = Tokens()


def most_tokens(config: JudgeConfig, messages: Messages) -> Tokens:
    """Return the most tokens that a request may take: a token is a byte or more, whatever the vocabulary."""
    text = sum(len(message["content"].encode()) + PER_MESSAGE for message in messages)
    return Tokens(OVERHEAD + text, config.max_answer_tokens)


def cost_of(config: JudgeConfig, tokens: Tokens) -> float | None:
    """Return the price of some tokens; None where no prices are set."""
    if config.price_per_million_input is None or config.price_per_million_output is None:
        return None
    return (tokens.prompt * config.price_per_million_input + tokens.completion * config.price_per_million_output) / 1e6


@dataclass
class Budget:
    """What is spent and what is reserved. One event loop at a time uses it."""

    config: JudgeConfig
    spent: Tokens = NO_TOKENS
    held: Tokens = NO_TOKENS
    under_way: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def reserve(self, most: Tokens) -> None:
        """Reserve what a request may take at most; wait for others to be settled where that would be too much.

        Raises:
            ConfigurationError: The budget does not suffice, whatever those under way come to.
        """
        async with self.changed:
            await self.changed.wait_for(lambda: self._fits(most) or not self.under_way)
            if not self._fits(most):
                raise ConfigurationError(self._refusal(most))
            self.held, self.under_way = self.held.plus(most), self.under_way + 1

    async def settle(self, most: Tokens, used: Tokens) -> None:
        """Put what a request has used in place of what was reserved for it."""
        async with self.changed:
            self.held, self.under_way = self.held.plus(most, -1), self.under_way - 1
            self.spent = self.spent.plus(used)
            self.changed.notify_all()

    def _fits(self, most: Tokens) -> bool:
        after = self.spent.plus(self.held).plus(most)
        tokens, money, cost = self.config.budget_tokens, self.config.budget_cost, cost_of(self.config, after)
        return (tokens is None or sum(after) <= tokens) and (money is None or cost is None or cost <= money)

    def _refusal(self, most: Tokens) -> str:
        settings = [(name, getattr(self.config, name)) for name in ("budget_tokens", "budget_cost")]
        limits = " and ".join(f"judge.{name} = {value:g}" for name, value in settings if value is not None)
        cost = cost_of(self.config, self.spent)
        money = "" if cost is None else f" ({cost:.4g})"
        return (
            f"{limits}: {sum(self.spent)} tokens{money} are spent, and the next request may take {sum(most)}. What was "
            "answered is kept: raise the budget and run again, which asks for the rest alone"
        )
