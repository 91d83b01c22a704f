"""The dry run: what each stage would do and cost, without computing it."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.store.artifacts import Artifact
from tasks.store.drafts import Draft, artifacts_of
from tasks.store.folders import Store

PENDING = "pending"
"""Kind of an artifact that a dry run foresees: it has estimated rows and no digest yet."""
Preview = Callable[[Draft, dict[str, Any]], tuple[Artifact, dict[str, Any]]]
"""Returns the artifact to expect of a stage's draft and arguments, and what it would cost."""


@dataclass
class Plan:
    """What a dry run finds: one line a stage, in order, and what the run would warn of."""

    folder: Path
    """Temporary folder for what previews lay out."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scratch: Store = field(default_factory=lambda: Store("memory://plan"))

    def visit(self, draft: Draft, preview: Preview, arguments: dict[str, Any]) -> Artifact:
        """Note whether a stage would be reused or computed, and what it would cost, without computing it."""
        waits_for = [artifact.uri for _, artifact in artifacts_of(arguments) if artifact.kind == PENDING]
        found = None if waits_for else draft.find()
        foreseen = Draft(draft.store, draft.provenance, writes_to=self.scratch)
        artifact, cost = (found, {}) if found else preview(foreseen, arguments)
        key = f"known after {', '.join(waits_for)}" if waits_for else draft.provenance.key
        action = "reuse" if found is not None else "compute"
        self.steps.append({"stage": draft.provenance.stage, "key": key, "action": action, **cost})
        return artifact


PLAN: ContextVar[Plan | None] = ContextVar("plan", default=None)
"""Set during a dry run: stages are then looked up and estimated instead of run."""


def pending(rows: int, stage: str, **stats: Any) -> Artifact:
    """Return a stand-in for an output that a dry run cannot know yet."""
    return Artifact(kind=PENDING, uri=stage, digest="", rows=rows, stats=stats)
