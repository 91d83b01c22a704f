"""Functions of the section `rewards`: asked about completions, and told apart from those that they fail on."""

import contextlib
import io
from collections.abc import Sequence

import numpy as np

from tasks.config.rewards import RewardSource
from tasks.pipeline.pace import Tell
from tasks.pipeline.progress import log, warn
from tasks.rewards.functions import Answer, UnscoredError, call, load_checked
from tasks.store.artifacts import Artifact


class FunctionReward:
    """A function of the section `rewards`: gives a reward, or counts and names the completions that it fails on."""

    def __init__(self, reward: Artifact) -> None:
        """Load the function.

        Raises:
            ConfigurationError: See `load_checked`.
        """
        source = RewardSource.model_validate(reward.stats["source"])
        self.name, self.reward = reward.stats["name"], load_checked(source.called, reward.digest)

    def __call__(self, answers: Sequence[Answer], tell: Tell) -> np.ndarray:
        """Return the rewards, (completions,) float64; NaN where the function failed. What it prints is not shown."""
        found, failures, printed = np.full(len(answers), np.nan), list[str](), io.StringIO()
        with contextlib.redirect_stdout(printed):
            for place, answer in enumerate(answers):
                try:
                    found[place] = call(self.reward, answer)
                except UnscoredError as error:
                    failures.append(f"{answer.id}: {error}")
                tell(found[place : place + 1])
        if text := printed.getvalue().strip():
            log(f"rewards.{self.name} prints, first {text.splitlines()[0][:80]!r}: that is not shown")
        if failures:
            warn(
                f"rewards.{self.name} fails on {len(failures)} of {len(answers)} completions, which get no reward, "
                f"first {'; '.join(failures[:3])}"
            )
        return found
