"""What a policy has drawn while it trains: counts that a checkpoint keeps, so that a training that goes on goes on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

FILE = "drawn.json"
"""Name of the file, in a checkpoint and in a job's folder."""


class Rollout(NamedTuple):
    """One completion that was drawn."""

    sequence_id: str
    tokens: int
    """Of the completion."""
    truncated: bool
    reward: float | None
    """None: it teaches nothing."""


class Drawn:
    """Counts what is drawn."""

    def __init__(self, checkpoint: Path) -> None:
        """Begin with what a checkpoint says, or with nothing where there is none."""
        file = checkpoint / FILE
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        self.completions, self.tokens = int(found.get("completions", 0)), int(found.get("tokens", 0))
        self.truncated, self.without_reward = int(found.get("truncated", 0)), int(found.get("without_reward", 0))
        self.different = set(found.get("different", ()))
        """Ids of the different ones that the policy was trained on."""

    def add(self, rollouts: Sequence[Rollout]) -> None:
        """Count what one step has drawn, on all devices."""
        self.completions += len(rollouts)
        self.tokens += sum(each.tokens for each in rollouts)
        self.truncated += sum(each.truncated for each in rollouts)
        self.without_reward += sum(each.reward is None for each in rollouts)
        self.different.update(each.sequence_id for each in rollouts if each.reward is not None)

    def save(self, folder: Path) -> None:
        """Write everything into a folder."""
        (folder / FILE).write_text(json.dumps(self.counts() | {"different": sorted(self.different)}))

    def counts(self) -> dict[str, int]:
        """Return how many completions and tokens were drawn, how many were truncated, and how many taught nothing."""
        return {
            "completions": self.completions,
            "tokens": self.tokens,
            "truncated": self.truncated,
            "without_reward": self.without_reward,
        }
