"""What is recorded of asking a judge."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tasks.judges.answers import Answer
from tasks.pipeline.progress import warn


@dataclass
class JudgeStats:
    """Counts of one judge in one process."""

    judge: str
    asked: int = 0
    """Answers that the endpoint gave."""
    cached: int = 0
    """Answers that were there, or that several rows share."""
    asked_again: int = 0
    """Questions whose first answer was not readable."""
    unreadable: int = 0
    """Questions whose second answer was not readable either."""
    models: Counter[str] = field(default_factory=Counter)
    """What the endpoint called the model -> answers."""
    example: str = ""
    """The first unreadable answer and what it is about."""

    def note_model(self, answer: Answer) -> None:
        """Count the name that the endpoint gave the model; warn where it is a second one."""
        is_other = bool(self.models) and answer.model not in self.models
        self.models[answer.model] += 1
        if is_other:
            warn(
                f"judge {self.judge} answers as {answer.model!r}, and before as {next(iter(self.models))!r}: verdicts "
                "of two models are not alike; pin one in judge.model, and set another text in judge.version"
            )

    def note_unreadable(self, about: str, text: str) -> None:
        """Count a question without a readable answer."""
        self.unreadable += 1
        self.example = self.example or f"{about}: {text[-200:]!r}"

    def figures(self) -> dict[str, Any]:
        """Return the counts."""
        names = ("asked", "cached", "asked_again", "unreadable")
        return {**{name: getattr(self, name) for name in names}, "models": dict(self.models)}
