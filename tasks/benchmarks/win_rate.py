"""Win rate against reference answers by a judge, in both orders, and as it were at equal lengths (arXiv:2404.04475)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tasks.benchmarks.figures import Answered, Figure, Outcome, Resampling, figure
from tasks.benchmarks.length_control import LEAST, controlled_statistic, length_controlled
from tasks.config.benchmarks import WinRateConfig
from tasks.config.errors import ConfigurationError
from tasks.data.columns import Role
from tasks.data.conversations import Messages
from tasks.data.tally import Tally, read_records

NAME = "win_rate"
REFITS = 200
"""Most resamples behind the interval of a length-controlled win rate: each is a regression of its own."""


class Instruction(NamedTuple):
    """What is asked, and the reference answer where the file has one."""

    messages: Messages
    reference: str | None


def read_instructions(config: WinRateConfig) -> list[Instruction]:
    """Read what is asked.

    Raises:
        ConfigurationError: There is nothing, a row cannot be read, or lacks the reference answer that is needed.
    """
    tally = Tally("win_rate.instructions", 0.0)
    role: Role = "prompts" if config.against is not None else "demonstrations"
    records = read_records(config.instructions, role, tally)
    found = [Instruction(record.messages, record.completion) for _, record in records]
    tally.check()
    if not found:
        raise ConfigurationError(f"win_rate.instructions = {config.instructions.path!r} has no rows: name another file")
    return found


def win_figures(policy: str, wins: np.ndarray, delta: np.ndarray, by: Resampling) -> list[Figure]:
    """Return the win rate and the length-controlled one, in per cent.

    Args:
        policy: Who is compared.
        wins: (n,) what it wins, in [0, 1]; NaN: unreadable.
        delta: (n,) characters of the reference answer less those of the policy's.
        by: How intervals are made.
    """
    readable = ~np.isnan(wins)
    wins, delta = wins[readable], delta[readable]
    figures = [figure((policy, NAME, "win rate (%)"), wins[:, None], by, scale=100)]
    if len(wins) >= LEAST:
        fit = length_controlled(wins, delta)
        refits = Resampling(min(REFITS, by.samples), by.seed)
        rows, name = np.stack([wins, delta], axis=1), (policy, NAME, "length-controlled (%)")
        refitted = figure(name, rows, refits, controlled_statistic(fit.strength), scale=100)
        figures.append(refitted._replace(value=100 * fit.win_rate))
    characters = float(-delta.mean()) if len(delta) else np.nan
    return [
        *figures,
        Figure(policy, NAME, "characters more than the reference", characters, np.nan, np.nan, len(delta)),
    ]


def outcome(
    policy: str,
    asked: Sequence[Instruction],
    sides: tuple[Sequence[str], Sequence[str]],
    wins: np.ndarray,
    by: Resampling,
) -> Outcome:
    """Return what comparisons come to.

    Args:
        policy: Who is compared.
        asked: The instructions.
        sides: The policy's answers, and the reference's.
        wins: What the policy wins, (n,).
        by: How intervals are made.
    """
    ours, theirs = sides
    delta = np.array([len(reference) - len(own) for own, reference in zip(ours, theirs, strict=True)], np.float64)
    rows = zip(asked, ours, wins, strict=True)
    answered = [Answered(policy, each.messages, text, NAME, float(win)) for each, text, win in rows]
    unread, notes = int(np.isnan(wins).sum()), []
    if unread:
        notes.append(f"{policy}: {unread} of {len(wins)} comparisons were unreadable and left out")
    if len(wins) - unread < LEAST:
        notes.append(f"{policy}: fewer than {LEAST} comparisons, so no length-controlled win rate")
    return Outcome(win_figures(policy, wins, delta, by), answered, notes)
